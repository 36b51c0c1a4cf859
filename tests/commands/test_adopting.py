"""`orphans --adopt`: a PersistentVolume that the API server takes, from all that is known (design.md 8)."""

from typing import Any

import msgspec
import yaml

from csi_provisioner.model.kubernetes import (
    CSIVolumeSource,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    SecretReference,
    VolumeNodeAffinity,
    VolumeSpec,
)
from tests.commands.conftest import Ask, Storage
from tests.commands.test_orphans import served
from tests.installation import NAMESPACE, VOLUME


async def adopted(ask: Ask, storage: Storage, volume_id: str, *flags: str) -> tuple[dict[str, Any], str]:
    """The PersistentVolume, made of what was printed, and what was said."""
    answer = await ask("--adopt", volume_id, *flags)
    assert answer.code == 0, answer.err
    storage.site.objects.create(VOLUME, yaml.safe_load(answer.out))
    again = await ask("--adopt", volume_id)
    assert again.code == 1
    assert "names volume" in again.err
    return dict(yaml.safe_load(answer.out)), answer.err


async def test_a_dropped_volume_comes_back_as_it_was_but_for_its_claim(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    term = NodeSelectorTerm([NodeSelectorRequirement("zone", "In", ["a"])])
    spec = VolumeSpec(
        accessModes=["ReadWriteMany"],
        capacity={"storage": "5Gi"},
        persistentVolumeReclaimPolicy="Delete",
        storageClassName="fast",
        volumeMode="Filesystem",
        nodeAffinity=VolumeNodeAffinity(NodeSelector([term])),
        csi=CSIVolumeSource(storage.site.config.name, "vol-1", "xfs", volumeAttributes={"share": "a"}),
    )
    await served(storage.site, controller=("CREATE_DELETE_VOLUME",))
    storage.leftover("vol-1", spec=spec, secret=SecretReference("login", NAMESPACE))
    made, said = await adopted(ask, storage, "vol-1")
    assert made["metadata"]["name"] == "pvc-lost"
    assert made["metadata"]["annotations"] == {
        "pv.kubernetes.io/provisioned-by": storage.site.config.name,
        "volume.kubernetes.io/provisioner-deletion-secret-name": "login",
        "volume.kubernetes.io/provisioner-deletion-secret-namespace": NAMESPACE,
    }
    assert made["spec"] == msgspec.to_builtins(msgspec.structs.replace(spec, persistentVolumeReclaimPolicy="Retain"))
    assert said == ""


async def test_one_of_the_journal_is_as_it_was_asked_for(ask: Ask, storage: Storage) -> None:
    await served(storage.site, ids_of_names=True, volume_context={"share": "b"})
    storage.owned(1)
    name = storage.entry()
    made, said = await adopted(ask, storage, storage.made(name))
    assert made["metadata"]["name"] == name
    assert made["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "fast",
        "volumeMode": "Filesystem",
        "csi": {
            "driver": storage.site.config.name,
            "volumeHandle": f"vol-{name}",
            "fsType": "xfs",
            "volumeAttributes": {"share": "b"},
        },
    }
    assert said == ""


async def test_of_one_that_only_the_list_has_it_is_said_what_is_assumed(ask: Ask, storage: Storage) -> None:
    plugin = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
    await served(storage.site, plugin=plugin)
    storage.owned(1)
    volume_id = storage.made("theirs")
    made, said = await adopted(ask, storage, volume_id)
    assert made["metadata"]["name"] == f"adopted-{volume_id}"
    assert made["spec"]["csi"]["volumeHandle"] == volume_id
    assert "accessModes" in said
    assert "volumeAttributes are not known" in said


async def test_what_nobody_knows_cannot_be_adopted(ask: Ask, storage: Storage) -> None:
    storage.owned(1)
    answer = await ask("--adopt", "vol-nowhere")
    assert answer.code == 1
    assert "nothing is known" in answer.err
