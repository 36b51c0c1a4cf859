"""The name of a volume, for the driver and the cluster alike (provision.md 8.4).

It depends on the flags and the claim's UID only: a retry, also after a restart, must ask for the same volume.
"""

from csi_provisioner.model.outcome import State
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.settings import ProvisioningSettings


def volume_name(uid: str, settings: ProvisioningSettings) -> str:
    if not settings.volume_name_prefix:
        raise Refusal(State.FINISHED, "cannot name the volume: --volume-name-prefix is empty")
    if not uid:
        raise Refusal(State.FINISHED, "cannot name the volume: the claim has no UID")
    # Dashes go before the cut, so that every character that is left tells claims apart.
    length = settings.volume_name_uuid_length
    return f"{settings.volume_name_prefix}-{uid if length == -1 else uid.replace('-', '')[:length]}"


def default_name(uid: str) -> str:
    """The name the existence check of section 5 step 1 looks for, whatever the flags say (quirk Q4, kept)."""
    return f"pvc-{uid}"
