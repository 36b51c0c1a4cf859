"""What helps against a refusal. Many texts say it themselves, after their last semicolon; a table has the others."""

import re

from csi_provisioner.planning import steps
from csi_provisioner.planning.refusal import Refusal

ACCOUNT = "the provisioner's account"
SAVE = f"grant create on persistentvolumes to {ACCOUNT} (kustomize/base does)"
MAX_CALLS = "raise its annotation csi-provisioner.io/max-concurrent-calls, or --class-workers of the provisioner"
ANEW = "make the claim anew with another source"

# Whose turn it is where we leave a claim alone.
WHO = {steps.SOURCE: "an external populator", steps.CLASS: "whoever has made the claim"}
# The first row of the step whose pattern is in the text; a row without one is for what does not say it itself.
TABLE = (
    (steps.SOURCE, "data source of kind", "is the populator for this kind installed, and what does its log say?"),
    (steps.SOURCE, "no right to", f"grant it to {ACCOUNT} (kustomize/components/snapshots, kustomize/base)"),
    (steps.SOURCE, "cannot read it", f"create it, or {ANEW}"),
    (steps.SOURCE, "no such claim", f"create it, or {ANEW}"),
    (steps.SOURCE, "being deleted", ANEW),
    (steps.SOURCE, "not bound to a Vol|not ready|no snapshot handle", "wait for the snapshot controller; see its log"),
    (steps.SOURCE, "not Bound", "have the source claim bound first: explain it"),
    (steps.SOURCE, "of driver", "take a class of the source's driver, or another source"),
    (steps.SOURCE, "less than the", "make the claim anew with at least that size"),
    (steps.SOURCE, "volume mode", "make the claim anew with the volume mode of its source"),
    (steps.SOURCE, "", "correct the source, or make the claim anew with another one"),
    (steps.SECRET, "no right to", f"grant get on secrets to {ACCOUNT} (kustomize/components/secrets)"),
    (steps.SECRET, "cannot read the provisioner secret", "create that secret, or correct the StorageClass"),
    (steps.SECRET, "", "correct the StorageClass"),
    (steps.DRIVER, "", "use a StorageClass of a driver that can"),
    (steps.ATTRIBUTES, "no right to", f"grant get on volumeattributesclasses to {ACCOUNT} (kustomize/base does)"),
    (steps.ATTRIBUTES, "cannot read", "create it, or name another one in the claim"),
    (steps.CLAIM, "", "make the claim anew"),
    (steps.CLASS, "", "make the claim anew with another class, or bring the class back"),
    (steps.PARAMETERS, "", "correct the parameters of the StorageClass"),
)


def split(refusal: Refusal) -> tuple[str, str]:
    """What is wrong, and what helps. The detail, which is kept from a claim's author, is for whoever may ask here."""
    text, said = parted(refusal.message)
    rows = [(pattern, fix) for step, pattern, fix in TABLE if step == refusal.step]
    fix = next((fix for pattern, fix in rows if pattern and re.search(pattern, text)), "")
    text += f" ({refusal.detail})" if refusal.detail else ""
    return text, fix or said or next((fix for pattern, fix in rows if not pattern), "")


def parted(message: str) -> tuple[str, str]:
    """At the last semicolon."""
    text, semicolon, fix = message.rpartition("; ")
    return (text, fix) if semicolon else (message, "")


def of_answer(text: str) -> str:
    """The driver's own words say what it does not like."""
    if "ResourceExhausted" in text:
        return "add storage, or ask for less; the driver's log says where it has none"
    if re.search("DeadlineExceeded|Unavailable|Aborted|Canceled", text):
        return "it may still be at work: see the driver's log, and --timeout if it is slow by nature"
    if "InvalidArgument" in text:
        return "correct the class or the claim as the driver says"
    return "the driver has said no: see its log"
