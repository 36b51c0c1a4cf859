"""Slim Structs of what uses claims: pods, and the quotas of namespaces. Only `explain` reads them.

As in `kubernetes`, attribute names are the API's own.
"""

import msgspec
from lightkube.core.resource import NamespacedResourceG

from csi_provisioner.model.kubernetes import Object, resource


class ClaimVolume(msgspec.Struct, gc=False):
    claimName: str = ""


class PodVolume(msgspec.Struct, gc=False):
    name: str = ""
    persistentVolumeClaim: ClaimVolume | None = None
    # Only that there is one counts: its claim is named after the pod and the volume.
    ephemeral: msgspec.Raw | None = None


class PodSpec(msgspec.Struct, gc=False):
    nodeName: str | None = None
    volumes: list[PodVolume] | None = None
    schedulingGates: list[msgspec.Raw] | None = None


class Condition(msgspec.Struct, gc=False):
    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None


class PodStatus(msgspec.Struct, gc=False):
    phase: str | None = None
    conditions: list[Condition] | None = None


@resource("", "v1", "Pod", "pods")
class Pod(NamespacedResourceG, Object):
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    def uses(self, claim: str) -> bool:
        name = self.metadata.name
        return any(
            (volume.persistentVolumeClaim is not None and volume.persistentVolumeClaim.claimName == claim)
            or (volume.ephemeral is not None and f"{name}-{volume.name}" == claim)
            for volume in self.spec.volumes or ()
        )


class QuotaSpec(msgspec.Struct, gc=False):
    # A quota with scopes counts only some objects.
    scopes: list[str] | None = None
    scopeSelector: msgspec.Raw | None = None


class QuotaStatus(msgspec.Struct, gc=False):
    hard: dict[str, str] | None = None
    used: dict[str, str] | None = None


@resource("", "v1", "ResourceQuota", "resourcequotas")
class ResourceQuota(NamespacedResourceG, Object):
    spec: QuotaSpec = msgspec.field(default_factory=QuotaSpec)
    status: QuotaStatus = msgspec.field(default_factory=QuotaStatus)
