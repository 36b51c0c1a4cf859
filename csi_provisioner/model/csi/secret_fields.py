"""Fields marked `csi_secret` in `protos/csi.proto`. Made by `protos/generate.py`; never edited."""

SECRET_FIELDS: frozenset[tuple[str, str]] = frozenset(
    {
        ("ControllerExpandVolumeRequest", "secrets"),
        ("ControllerModifyVolumeRequest", "secrets"),
        ("ControllerPublishVolumeRequest", "secrets"),
        ("ControllerUnpublishVolumeRequest", "secrets"),
        ("CreateSnapshotRequest", "secrets"),
        ("CreateVolumeRequest", "secrets"),
        ("DeleteSnapshotRequest", "secrets"),
        ("DeleteVolumeRequest", "secrets"),
        ("GetSnapshotRequest", "secrets"),
        ("ListSnapshotsRequest", "secrets"),
        ("ValidateVolumeCapabilitiesRequest", "secrets"),
    }
)
"""(name of the message class, name of the field)"""
