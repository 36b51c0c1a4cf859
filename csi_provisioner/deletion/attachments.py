"""Which VolumeAttachments name a volume: an index beside the store, so that a deletion does not walk all of them."""

from collections.abc import Iterable

from csi_provisioner.model.kubernetes import VolumeAttachment


class Attachments:
    """Fed as a handler of the attachment store (delete.md 7.2)."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, VolumeAttachment]] = {}

    def of(self, volume: str) -> Iterable[VolumeAttachment]:
        return self._of.get(volume, {}).values()

    def saw_attachment(self, key: str, old: VolumeAttachment | None, new: VolumeAttachment | None) -> None:
        if old is not None:
            name = old.spec.source.persistentVolumeName or ""
            there = self._of.get(name, {})
            there.pop(key, None)
            if not there:
                self._of.pop(name, None)
        if new is not None and new.spec.source.persistentVolumeName:
            self._of.setdefault(new.spec.source.persistentVolumeName, {})[key] = new
