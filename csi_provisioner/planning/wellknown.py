"""Names that the cluster, other components and drivers rely on (provision.md 1): never to be changed."""

# ---- annotations of claims
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
# The volume controller of Kubernetes writes both keys.
BETA_STORAGE_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
BETA_STORAGE_CLASS = "volume.beta.kubernetes.io/storage-class"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
ALPHA_SELECTED_NODE = "volume.alpha.kubernetes.io/selected-node"
MIGRATED_TO = "pv.kubernetes.io/migrated-to"

# ---- annotations of volumes and snapshot contents
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
DELETION_SECRET_NAME = "volume.kubernetes.io/provisioner-deletion-secret-name"
DELETION_SECRET_NAMESPACE = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
MODIFY_SECRET_NAME = "volume.kubernetes.io/controller-modify-secret-name"
MODIFY_SECRET_NAMESPACE = "volume.kubernetes.io/controller-modify-secret-namespace"
ALLOW_MODE_CHANGE = "snapshot.storage.kubernetes.io/allow-volume-mode-change"

# ---- finalizers
CLONE_FINALIZER = "provisioner.storage.kubernetes.io/cloning-protection"
# The snapshot controller has one of its own for the same purpose. That is never touched here.
SNAPSHOT_FINALIZER = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"
VOLUME_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"

# ---- parameters and attributes
PARAMETER_PREFIX = "csi.storage.k8s.io/"
FSTYPE_PARAMETER = PARAMETER_PREFIX + "fstype"
CLAIM_NAME_PARAMETER = PARAMETER_PREFIX + "pvc/name"
CLAIM_NAMESPACE_PARAMETER = PARAMETER_PREFIX + "pvc/namespace"
VOLUME_NAME_PARAMETER = PARAMETER_PREFIX + "pv/name"
IDENTITY_ATTRIBUTE = "storage.kubernetes.io/csiProvisionerIdentity"

# ---- kinds of data sources
CLAIM_KIND = "PersistentVolumeClaim"
SNAPSHOT_KIND = "VolumeSnapshot"
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"
