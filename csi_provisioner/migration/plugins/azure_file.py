"""Azure File (provision.md 14.2 and 14.3, delete.md 11). A share is reached with a secret and has no topology."""

import re

from csi_provisioner.migration.plugin import Plugin, TranslationError, ignoring_case
from csi_provisioner.model.in_tree import AzureFile
from csi_provisioner.model.kubernetes import CSIVolumeSource, PersistentVolume, SecretReference, StorageClass

DRIVER = "file.csi.azure.com"
RESOURCE_GROUP = "kubernetes.io/azure-file-resource-group"

_ACCOUNT = re.compile(r"azure-storage-account-(.+)-secret", re.DOTALL)


def storage_class(sc: StorageClass) -> None:
    """The driver understands the in-tree parameters as they are."""


def to_in_tree(pv: PersistentVolume, csi: CSIVolumeSource) -> None:
    share = ignoring_case(csi.volumeAttributes, "sharename")
    secret = ignoring_case(csi.volumeAttributes, "secretname")
    namespace = ignoring_case(csi.volumeAttributes, "secretnamespace")
    # The secret that nodes mount the share with wins over the one that the attributes name.
    if csi.nodeStageSecretRef and csi.nodeStageSecretRef.name:
        secret, namespace = csi.nodeStageSecretRef.name, csi.nodeStageSecretRef.namespace
    if not share or not secret:
        group, account, handle_share = _parts(csi.volumeHandle)
        share = share or handle_share
        secret = secret or f"azure-storage-account-{account}-secret"
        if group:
            pv.metadata.annotations = {**(pv.metadata.annotations or {}), RESOURCE_GROUP: group}
    pv.spec.azureFile = AzureFile(
        secretName=secret, shareName=share, readOnly=csi.readOnly, secretNamespace=namespace or "default"
    )


def to_csi(pv: PersistentVolume) -> CSIVolumeSource:
    source = pv.spec.azureFile or AzureFile()
    claim = pv.spec.claimRef
    namespace = source.secretNamespace or (claim.namespace if claim else None)
    if not namespace:
        raise TranslationError(
            f"PersistentVolume {pv.metadata.name} names no namespace for its secret {source.secretName!r}: "
            "neither spec.azureFile.secretNamespace nor spec.claimRef.namespace is set"
        )
    # The secret is named after its account unless people made it.
    match = _ACCOUNT.search(source.secretName)
    account = match[1] if match else source.secretName
    group = (pv.metadata.annotations or {}).get(RESOURCE_GROUP, "")
    return CSIVolumeSource(
        driver=DRIVER,
        # the volume's own name keeps handles apart when two volumes use one share
        volumeHandle="#".join([group, account, source.shareName, pv.metadata.name, namespace]),
        readOnly=source.readOnly,
        volumeAttributes={"sharename": source.shareName},
        nodeStageSecretRef=SecretReference(name=source.secretName, namespace=namespace),
    )


def _parts(handle: str) -> tuple[str, str, str]:
    parts = handle.split("#")
    if len(parts) < 3:
        raise TranslationError(
            f"the volume handle {handle!r} is not <resource group>#<account>#<share>, "
            "and the volume attributes do not name share and secret"
        )
    return parts[0], parts[1], parts[2]


PLUGIN = Plugin(storage_class, to_in_tree, to_csi)
