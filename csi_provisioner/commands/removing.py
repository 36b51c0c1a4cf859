"""Deletes one volume that nobody owns, after another look at all that could still name or use it (design.md 8)."""

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from csi_provisioner.csi.errors import CallError
from csi_provisioner.fatal import Fatal
from csi_provisioner.kube import identity
from csi_provisioner.kube.client import KubeError
from csi_provisioner.logs import escaped
from csi_provisioner.model import csi, kubernetes
from csi_provisioner.model.kubernetes import Lease, Secret, SecretReference, VolumeAttachment
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import entries, evidence, leftover, naming, secrets
from csi_provisioner.planning.evidence import Finding, Report
from csi_provisioner.planning.refusal import Refusal

from .asking import Asking
from .entry import CannotAskError, say, show


@dataclass(eq=False, kw_only=True)
class Removal:
    asked: Asking
    volume_id: str
    yes: bool
    force: bool
    secret: str
    """NAMESPACE/NAME, or empty for what was noted."""

    async def run(self, found: Report) -> int:
        """0: the volume is deleted. Raises CannotAskError where it may be somebody's."""
        driver = self.asked.driver
        if driver is None:
            raise CannotAskError("there is no driver to delete it: " + "; ".join(self.asked.notes))
        finding = self._finding(found)
        await self._confirm(finding)
        # What was true before the question need not be true after it.
        finding = self._finding(await self._looked_again(finding))
        reference = self._reference(finding)
        values = await self._read(reference)
        request = csi.DeleteVolumeRequest(volume_id=self.volume_id, secrets=values.reveal())
        try:
            await driver.delete_volume(request, migrated=finding.migrated if self.asked.migratable else None)
        except CallError as error:
            hint = "" if reference else "; no secret was noted, --secret gives one"
            raise CannotAskError(f"volume {self.volume_id} is not deleted: {error}{hint}") from error
        await self._forget(finding)
        show(f"Volume {escaped(self.volume_id)} is deleted.\n")
        return 0

    def _finding(self, found: Report) -> Finding:
        finding = found.find(self.volume_id)
        if finding is not None:
            return finding
        if self.volume_id not in found.unknown:
            raise CannotAskError(f"volume {self.volume_id} is not among those without an owner; nothing is deleted")
        if not self.force:
            text = f"only the driver's list has volume {self.volume_id}, and another cluster may own it"
            raise CannotAskError(f"{text}; --force deletes it")
        return Finding(self.volume_id, "")

    async def _confirm(self, finding: Finding) -> None:
        if self.yes:
            return
        # A script that forgot --yes must not delete by accident, and must not wait for ever either.
        if not sys.stdin.isatty():
            raise Fatal("there is no terminal to ask at: --yes deletes without asking", 2)
        why = "; ".join(finding.evidence) or "only the driver's list has it"
        question = f"Delete volume {escaped(self.volume_id)} and all its data ({escaped(why)})? [y/N] "
        answer = await trio.to_thread.run_sync(partial(input, question), abandon_on_cancel=True)
        if answer.strip().lower() not in ("y", "yes"):
            raise CannotAskError("nothing is deleted")

    async def _looked_again(self, finding: Finding) -> Report:
        """Everything anew: people take their time to answer."""
        known = await self.asked.known()
        if other := evidence.owner(known.volumes, self.volume_id):
            raise CannotAskError(f"PersistentVolume {other} names volume {self.volume_id}; nothing is deleted")
        names = [volume.metadata.name for volume in known.volumes]
        if finding.name and finding.name in names and finding.found != [evidence.LISTING] and not self.force:
            raise CannotAskError(f"PersistentVolume {finding.name} is there again; nothing is deleted")
        # A claim that waits is given this very volume when it is tried next.
        for claim in known.claims:
            named = naming.volume_name(claim.metadata.uid, known.settings)
            if finding.name and finding.name in (claim.spec.volumeName, named) and not self.force:
                raise CannotAskError(f"claim {kubernetes.key(claim)} of this volume is there; nothing is deleted")
        report = evidence.report(known)
        again = self._finding(report)
        nodes = again.published or await self._attached(finding.name)
        if nodes:
            raise CannotAskError(f"volume {self.volume_id} is attached to {', '.join(nodes)}; nothing is deleted")
        return report

    async def _attached(self, name: str) -> list[str]:
        try:
            attachments = await self.asked.all(VolumeAttachment)
        except KubeError as error:
            # Not every role lets us list attachments, and drivers that attach nothing have none.
            self.asked.note(f"whether it is attached is not known: {error}")
            return []
        return [each.spec.nodeName for each in attachments if name and each.spec.source.persistentVolumeName == name]

    def _reference(self, finding: Finding) -> SecretReference | None:
        if self.secret:
            namespace, _, name = self.secret.partition("/")
            return SecretReference(name, namespace)
        return finding.secret

    async def _read(self, reference: SecretReference | None) -> SecretData:
        if reference is None:
            return SecretData()
        secret = await self.asked.get(Secret, reference.name, reference.namespace)
        if secret is None:
            text = f"Secret {reference.namespace}/{reference.name} is gone, deleting without it"
            say(text)
            return SecretData()
        try:
            return secrets.decoded(secret)
        except Refusal as refusal:
            raise CannotAskError(refusal.message) from refusal

    async def _forget(self, finding: Finding) -> None:
        """It is no leftover any more; a list that cannot be changed only shows it once more."""
        namespace = self.asked.settings.election.own_namespace
        if finding.leftover is None or not namespace:
            return

        def edit(lease: dict[str, Any]) -> bool:
            annotations = lease["metadata"]["annotations"]
            texts = leftover.read(annotations)
            texts.pop(self.volume_id, None)
            annotations[leftover.DROPPED] = entries.pack(texts)
            return True

        name = leftover.lease_name(identity.sanitised(self.asked.name))
        try:
            await self.asked.kube.change(Lease, name, namespace, seen="", edit=edit)
        except KubeError as error:
            say(f"It stays in the list of Lease {name}: {error}")
