"""What the reference says beside the names that the code has."""

from csi_provisioner.capacity.objects import DRIVER_LABEL, MANAGER_LABEL
from csi_provisioner.kube.election import JOURNAL
from csi_provisioner.planning import templates, wellknown
from csi_provisioner.planning.existing import DEFAULT_CLASS
from csi_provisioner.planning.leftover import DROPPED
from csi_provisioner.provision.journal_leases import ENTRIES, TERM
from csi_provisioner.supervisor.fairness import MAX_CALLS

GATES = {
    "Topology": "volumes have topology, where the driver has it",
    "VolumeAttributesClass": "claims may name a VolumeAttributesClass. Off by itself where the cluster does not serve "
    "the kind, unless the flag names it",
    "CrossNamespaceVolumeDataSource": "sources in other namespaces, with a ReferenceGrant",
    "VolumeSnapshotTopology": "the places from which a snapshot can be restored bound those of the class",
    "ReleaseLeaderElectionOnExit": "nothing: the lease is given back always",
    "AllAlpha": "all that are off",
    "AllBeta": "nothing: none is in beta",
}
ENVIRONMENT = {
    "CSI_ENDPOINT": ("socket of the driver", "`--csi-address`"),
    "KUBE_CONFIG_PATH": ("kubeconfig", "`--kubeconfig`"),
    "KUBECONFIG": ("kubeconfig, a single path", "both of these, `--master`, the pod's service account"),
    "KUBERNETES_SERVICE_HOST": ("API server, with the pod's service account; Kubernetes sets it", "both of the first"),
    "KUBERNETES_SERVICE_PORT": ("its port", ""),
    "HTTPS_PROXY": ("way to an API server by https", "`proxy-url` of the kubeconfig"),
    "HTTP_PROXY": ("way to one by http", "the same"),
    "NO_PROXY": ("hosts, domains, addresses and ranges that no proxy is asked for", ""),
    "POD_NAMESPACE": ("namespace of the lease, else the pod's own", "`--leader-election-namespace`"),
    "NODE_NAME": ("with `--node-deployment`, which needs it", ""),
    "NAMESPACE": ("with `--enable-capacity`, which needs it: where the objects go", ""),
    "POD_NAME": ("with `--enable-capacity`: the pod whose owner has the objects", ""),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("where traces go; OpenTelemetry's other variables work then too", ""),
    "OTEL_SDK_DISABLED": ("`true`: no traces", ""),
}
CODES = {
    0: "asked to stop; `--version`, `--help`",
    1: "what it stands on is not as it should be: log options, socket, driver, lease; a second signal",
    2: "the command line cannot be read, or a value cannot work",
    255: "no way to the cluster, a variable that is missing, a driver that cannot be used",
}
# Of an object: who sets it, and what it says.
ANNOTATIONS = (
    (wellknown.STORAGE_PROVISIONER, "claim", "volume controller", "the driver whose turn it is"),
    (wellknown.BETA_STORAGE_PROVISIONER, "claim", "volume controller", "the same, read where the other is not there"),
    (wellknown.BETA_STORAGE_CLASS, "claim, PersistentVolume", "people", "its class; wins over `storageClassName`"),
    (wellknown.SELECTED_NODE, "claim", "scheduler; with `--node-deployment` this program",
     "the node that its volume is for; taken away where the volume cannot be made there"),
    (wellknown.ALPHA_SELECTED_NODE, "claim", "old schedulers", "read only to say that it is without effect"),
    (wellknown.MIGRATED_TO, "claim, PersistentVolume", "volume controller",
     "the CSI driver that does the work of an in-tree plugin"),
    (wellknown.PROVISIONED_BY, "PersistentVolume", "this program", "the driver or plugin that made it, and deletes it"),
    (wellknown.DELETION_SECRET_NAME, "PersistentVolume", "this program", "the secret for DeleteVolume"),
    (wellknown.DELETION_SECRET_NAMESPACE, "PersistentVolume", "this program", "its namespace"),
    (wellknown.MODIFY_SECRET_NAME, "PersistentVolume", "this program", "the secret for ControllerModifyVolume"),
    (wellknown.MODIFY_SECRET_NAMESPACE, "PersistentVolume", "this program", "its namespace"),
    (wellknown.ALLOW_MODE_CHANGE, "VolumeSnapshotContent", "administrators",
     "`true`: may be restored with another volume mode"),
    (DEFAULT_CLASS, "StorageClass", "administrators", "read by `explain`: the class of claims that name none"),
    (MAX_CALLS, "StorageClass", "administrators", "calls at a time for volumes of this class; 0 stops them"),
    (JOURNAL, "leader's Lease", "this program", "since which change of leaders there is a volume journal"),
    (ENTRIES, "journal's Leases", "this program", "volumes in progress"),
    (TERM, "journal's Leases", "this program", "whose entries they are"),
    (DROPPED, "Lease `...-dropped`", "this program", "volumes whose PersistentVolume went, or that may be left over"),
)  # fmt: skip
FINALIZERS = (
    (wellknown.VOLUME_FINALIZER, "PersistentVolume", "its volume has to be deleted first, unless it is `Retain`",
     "DeleteVolume has succeeded"),
    (wellknown.CLONE_FINALIZER, "claim", "it is being cloned", "no clone of it is in progress"),
    (wellknown.SNAPSHOT_FINALIZER, "VolumeSnapshot", "it is being restored",
     "no restore is in progress; left ones are swept each `--snapshot-orphan-sweep-interval`"),
)  # fmt: skip
LABELS = (
    (DRIVER_LABEL, "CSIStorageCapacity", "the driver"),
    (MANAGER_LABEL, "CSIStorageCapacity", "who publishes it"),
    ("app.kubernetes.io/managed-by", "journal's Leases", "`csi-provisioner`"),
)
SECRETS = {
    templates.DEFAULT: "every call below that has no pair of its own",
    templates.PROVISIONER: "CreateVolume and DeleteVolume",
    templates.CONTROLLER_PUBLISH: "ControllerPublishVolume",
    templates.NODE_STAGE: "NodeStageVolume",
    templates.NODE_PUBLISH: "NodePublishVolume",
    templates.CONTROLLER_EXPAND: "ControllerExpandVolume",
    templates.NODE_EXPAND: "NodeExpandVolume",
    templates.CONTROLLER_MODIFY: "ControllerModifyVolume",
}
TOKENS = {
    "pv.name": "the volume's name",
    "pvc.namespace": "the claim's namespace",
    "pvc.name": "the claim's name",
    "pvc.annotations['KEY']": "that annotation of the claim; not when the volume is deleted",
}
# Capabilities that `check` does not speak of.
CAPABILITIES = {
    "PUBLISH_UNPUBLISH_VOLUME": "VolumeAttachments are not watched; a volume's deletion does not wait for them",
    "SINGLE_NODE_MULTI_WRITER": "ReadWriteOnce and ReadWriteOncePod are both SINGLE_NODE_WRITER",
}
SINCE = {"CSIStorageCapacity": "1.24", "VolumeAttributesClass": "1.34"}  # of Kubernetes itself, as version v1
# What is needed, by the kind of object.
NEEDED = {
    "leases": "no replica leads; without an election, no volume journal",
    "csistoragecapacities": "no storage capacity is published",
    "pods": "the owner of capacity objects is not found, and the process ends",
    "replicasets": "the owner of capacity objects is not found, and the process ends",
}
