"""Volumes that no PersistentVolume names, as far as this program knows: what is kept of them, and where (design.md 6).

The last of them stand in an annotation of a Lease, so that `orphans` finds them when the process that knew is gone.
What a newer version wrote is carried along as it is.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from csi_provisioner.model.kubernetes import PersistentVolume, SecretReference, VolumeSpec
from csi_provisioner.planning import deletion, entries, finalizers, secrets, wellknown
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal

# The annotation: texts by volume id, or by name where that is unknown, oldest first
DROPPED = "csi-provisioner.io/dropped"
# About 10 KiB in etcd. Older ones stay in the log, the events and the metric.
KEPT = 200
# Bytes of one, so that all of them are more than a few. What is cut off is in the log, or the driver's list has it.
MOST_TEXT, MOST_REASON = 16 * 1024, 1024


class Leftover(msgspec.Struct, frozen=True, omit_defaults=True):
    """`dropped`: its PersistentVolume went without our DeleteVolume; `suspect`: it never had one. `spec` is that of the
    PersistentVolume, without its claim."""

    kind: Literal["dropped", "suspect"]
    driver: str
    name: str
    """Of the PersistentVolume."""
    when: int
    """Seconds since 1970."""
    volume_id: str = ""
    claim: str = ""
    reason: str = ""
    secret: SecretReference | None = None
    migrated: bool = False
    spec: VolumeSpec | None = None


def lease_name(lease: str) -> str:
    return f"{lease}-dropped"


def read(annotations: Mapping[str, str] | None) -> dict[str, bytes]:
    """The texts of the annotation. Raises UnreadableError."""
    return entries.unpack((annotations or {}).get(DROPPED, "{}"))


def added(known: Mapping[str, bytes], news: Iterable[Leftover]) -> dict[str, bytes]:
    texts = dict(known)
    for leftover in news:
        key = leftover.volume_id or leftover.name
        # The newest word on a volume counts, and stands last.
        texts.pop(key, None)
        text = msgspec.json.encode(leftover)
        if len(text) > MOST_TEXT:
            text = msgspec.json.encode(
                msgspec.structs.replace(leftover, spec=None, reason=leftover.reason[:MOST_REASON])
            )
        if len(text) <= MOST_TEXT:
            texts[key] = text
    texts = dict(list(texts.items())[-KEPT:])
    # The API server would refuse them all, or the next one could not read them.
    while not entries.fits(texts, entries.pack(texts)):
        texts = dict(list(texts.items())[1 + len(texts) // 8 :])
    return texts


def understood(texts: Mapping[str, bytes], driver: str) -> tuple[list[Leftover], int]:
    """Those of this driver, and how many are not understood."""
    found, strange = [], 0
    for text in texts.values():
        try:
            leftover = msgspec.json.decode(text, type=Leftover)
        except (msgspec.DecodeError, RecursionError):
            strange += 1
            continue
        # Others may write Leases too: what is shown under one id must not give back, or delete, another volume.
        shown = leftover.spec.csi if leftover.spec is not None else None
        if shown is not None and shown.volumeHandle != leftover.volume_id:
            strange += 1
        elif leftover.driver == driver:
            found.append(leftover)
    return found, strange


# ---- whether a volume was dropped


def is_told(volume: PersistentVolume, driver: DriverFacts, segments: Mapping[str, str] | None) -> bool:
    """Made by a provisioner for this driver, and of this node in a per-node deployment; whoever made one by hand looks
    after it by hand."""
    if not driver.answers_to((volume.metadata.annotations or {}).get(wellknown.PROVISIONED_BY)):
        return False
    try:
        deletion.check_accessible(volume, segments)
    except Refusal as refusal:
        return not refusal.ignored
    return True


def was_being_deleted(volume: PersistentVolume) -> bool:
    """A provisioner before us had asked the driver to delete it."""
    # Our finalizer goes only after the driver's answer, and never before with this policy.
    return (
        bool(volume.metadata.deletionTimestamp)
        and volume.spec.persistentVolumeReclaimPolicy == "Delete"
        and not finalizers.present(volume, wellknown.VOLUME_FINALIZER)
    )


def of_volume(volume: PersistentVolume, driver: DriverFacts, *, when: int) -> Leftover:
    """`volume` is as the cluster had it last."""
    try:
        target = deletion.target(volume)
        migrated = target.migrated
        secret = secrets.deletion_reference(target.volume, lambda _name: None, driver, migrated=migrated).reference
    except Refusal:
        migrated, secret = False, None
    policy, claim = volume.spec.persistentVolumeReclaimPolicy, volume.spec.claimRef
    kept = "its reclaim policy is Retain" if policy == "Retain" else "it went before the driver was asked to delete it"
    return Leftover(
        kind="dropped",
        driver=driver.name,
        name=volume.metadata.name,
        when=when,
        volume_id=deletion.handle(volume) or "",
        claim=f"{claim.namespace}/{claim.name}" if claim is not None else "",
        reason=f"its PersistentVolume was deleted, and {kept}",
        secret=secret,
        migrated=migrated,
        # Of one that only a list has missed no more is known than its id (`settled`).
        spec=msgspec.structs.replace(volume.spec, claimRef=None) if volume.spec.capacity else None,
    )
