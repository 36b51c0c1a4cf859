"""Reads what `explain` needs from the API server, also with rights that grant only lists."""

from dataclasses import dataclass
from typing import Any

from lightkube.core.resource import api_info

from csi_provisioner.advice import kustomization
from csi_provisioner.kube.asking import ALL_NS
from csi_provisioner.kube.client import KubeClient, KubeError, Scope
from csi_provisioner.model.kubernetes import (
    BetaReferenceGrant,
    Event,
    PersistentVolume,
    ReferenceGrant,
    Secret,
    VolumeAttributesClass,
    VolumeSnapshot,
    VolumeSnapshotContent,
)
from csi_provisioner.model.usage import Pod, ResourceQuota
from csi_provisioner.planning.explanation import Read, Unread

# The daemon reads these one by one, so that a list in their place would hide that it may not.
ONE_BY_ONE = (PersistentVolume, Secret, VolumeAttributesClass, VolumeSnapshot, VolumeSnapshotContent)
OF_EXPLAIN = (Pod, Event, ResourceQuota)


@dataclass(eq=False)
class Lookup:
    """`same_account`: who asks has the provisioner's rights, and what they do not grant is what is looked for."""

    kube: KubeClient
    same_account: bool = False

    async def read(self, asked: Read) -> Any:
        try:
            return await self._named(asked) if asked.name else await self._listed(asked)
        except KubeError as error:
            if error.forbidden:
                return Unread(_missing_right(asked), forbidden=True)
            if error.reason == "InvalidName":  # of an annotation, which nobody has checked
                return Unread(str(error), missing=True)
            # A kind that is not served here has no objects.
            if error.code == 404:
                return Unread(str(error), missing=error.not_found) if asked.name else []
            raise

    async def _named(self, asked: Read) -> Any:
        try:
            return await self.kube.get(asked.kind, asked.name, asked.namespace or None)
        except KubeError as error:
            if not error.forbidden or (self.same_account and asked.kind in ONE_BY_ONE):
                raise
            forbidden = error
        try:
            found = await self._listed(asked._replace(fields=f"metadata.name={asked.name}"))
        except KubeError as error:
            raise (forbidden if error.forbidden else error) from error
        return found[0] if found else Unread(f"there is no {asked.kind.__name__} {asked.name}", missing=True)

    async def _listed(self, asked: Read) -> list[Any]:
        try:
            return await self._pages(asked)
        except KubeError as error:
            # Clusters serve the one version, the other or both.
            if error.code != 404 or asked.kind is not ReferenceGrant:
                raise
            return await self._pages(asked._replace(kind=BetaReferenceGrant))

    async def _pages(self, asked: Read) -> list[Any]:
        found: list[Any] = []
        scope, token = Scope(asked.namespace or ALL_NS, fields=asked.fields or None), None
        while True:
            try:
                page = await self.kube.list_page(asked.kind, scope, continue_token=token)
            except KubeError as error:
                if error.code != 410 or token is None:
                    raise
                found, token = [], None  # the list has become too old to be read on: from its beginning
                continue
            found += page.items
            if not (token := page.continue_token):
                return found


def _missing_right(asked: Read) -> str:
    info, verb = api_info(asked.kind), "get" if asked.name else "list"
    folder = "components/explain" if asked.kind in OF_EXPLAIN else kustomization(info.resource.group, info.plural, verb)
    return f"no right to {verb} {info.plural}" + (f" (kustomize/{folder} has it)" if folder else "")
