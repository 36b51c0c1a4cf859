"""Volume sources of the in-tree plugins that CSI drivers superseded: what `migration` translates from and to."""

import msgspec


class AWSElasticBlockStore(msgspec.Struct, gc=False, omit_defaults=True):
    volumeID: str = ""
    fsType: str = ""
    partition: int = 0
    readOnly: bool = False


class GCEPersistentDisk(msgspec.Struct, gc=False, omit_defaults=True):
    pdName: str = ""
    fsType: str = ""
    partition: int = 0
    readOnly: bool = False


class AzureDisk(msgspec.Struct, gc=False, omit_defaults=True):
    diskName: str = ""
    diskURI: str = ""
    cachingMode: str | None = None
    fsType: str | None = None
    readOnly: bool | None = None
    kind: str | None = None


class AzureFile(msgspec.Struct, gc=False, omit_defaults=True):
    secretName: str = ""
    shareName: str = ""
    readOnly: bool = False
    secretNamespace: str | None = None


class Cinder(msgspec.Struct, gc=False, omit_defaults=True):
    volumeID: str = ""
    fsType: str = ""
    readOnly: bool = False


class VsphereVolume(msgspec.Struct, gc=False, omit_defaults=True):
    volumePath: str = ""
    fsType: str = ""
    storagePolicyName: str = ""
    storagePolicyID: str = ""


class PortworxVolume(msgspec.Struct, gc=False, omit_defaults=True):
    volumeID: str = ""
    fsType: str = ""
    readOnly: bool = False
