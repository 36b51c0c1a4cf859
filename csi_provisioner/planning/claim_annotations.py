"""Annotations of a claim that become parameters of CreateVolume (`--claim-annotation-prefix`, provision.md 9.1).

A claim's author speaks to the driver by them: never where the class has spoken already, and within CSI's limit. Texts
for people name keys, never values.
"""

from collections.abc import Collection, Mapping

from csi_provisioner.model import kubernetes
from csi_provisioner.model.outcome import State
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.refusal import Refusal, some

LARGEST = 4 << 10
"""Bytes of keys and values that a map may have in CSI."""


def under(prefixes: Collection[str], given: Mapping[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in (given or {}).items() if key.startswith(tuple(prefixes))}


def check(draft: Draft) -> None:
    """Many drivers read their parameters in any case: a key in other letters would override the operator as well."""
    plan = draft.class_plan
    own = {key.casefold(): key for form in (plan.original, plan.effective) for key in form.parameters or {}}
    for key in draft.annotations:
        if key.casefold() in own:
            raise Refusal(
                State.FINISHED,
                f"claim {kubernetes.key(draft.claim)} has the annotation {key!r}, and StorageClass "
                f"{plan.original.metadata.name} the parameter {own[key.casefold()]!r}: a claim cannot change what its "
                "class says; take the annotation off, or use another class",
            )


def check_size(draft: Draft, parameters: Mapping[str, str]) -> None:
    """Without annotations it is for the driver to say: classes may have had more since ever."""
    size = sum(len(key.encode()) + len(value.encode()) for key, value in parameters.items())
    if draft.annotations and size > LARGEST:
        raise Refusal(
            State.NO_CHANGE,
            f"the parameters for claim {kubernetes.key(draft.claim)} have {size} bytes with its annotations "
            f"{some(sorted(draft.annotations))}, and CSI allows {LARGEST}: give the claim fewer or shorter ones",
        )
