"""Volume sources of the in-tree plugins that CSI drivers superseded: what `migration` translates from and to."""

import msgspec


class Disk(msgspec.Struct, gc=False, omit_defaults=True):
    """What several plugins have under the same names."""

    volumeID: str = ""
    fsType: str = ""
    readOnly: bool = False


class AWSElasticBlockStore(Disk):
    partition: int = 0


class Cinder(Disk):
    """Nothing more."""


class PortworxVolume(Disk):
    """Nothing more."""


class GCEPersistentDisk(msgspec.Struct, gc=False, omit_defaults=True):
    pdName: str = ""
    fsType: str = ""
    partition: int = 0
    readOnly: bool = False


class AzureDisk(msgspec.Struct, gc=False, omit_defaults=True):
    diskName: str = ""
    diskURI: str = ""
    # Pointers in the API: one that is not set is not told to the driver, unlike an empty one.
    cachingMode: str | None = None
    fsType: str | None = None
    readOnly: bool | None = None
    kind: str | None = None


# A share, not a disk: it is reached by the secret of its storage account.
class AzureFile(msgspec.Struct, gc=False, omit_defaults=True):
    secretName: str = ""
    shareName: str = ""
    readOnly: bool = False
    secretNamespace: str | None = None


class VsphereVolume(msgspec.Struct, gc=False, omit_defaults=True):
    volumePath: str = ""
    fsType: str = ""
    storagePolicyName: str = ""
