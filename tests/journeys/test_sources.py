"""Claims made from something: a snapshot, another claim; and what secrets and attribute classes add to a request."""

from tests.canary import held, secret
from tests.journeys.objects import (
    ATTRIBUTES,
    CLAIM,
    CLASS,
    CLONE_FINALIZER,
    SECRET,
    SNAPSHOT,
    SNAPSHOT_FINALIZER,
    finalizers,
    from_claim,
    from_snapshot,
)
from tests.journeys.world import Rule, World

HOLD = 1.5
"""Long enough for a person with a fast API to look while the driver is at work."""


async def test_a_snapshot_is_protected_while_it_is_restored(world: World) -> None:
    world.rules(Rule(match="/copy$", delay=HOLD))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    handle = (await world.bound("data"))["spec"]["csi"]["volumeHandle"]
    await world.snapshot("snap", handle)
    await world.claim("copy", **from_snapshot("snap"))
    await world.until(SNAPSHOT, "snap", lambda snapshot: SNAPSHOT_FINALIZER in finalizers(snapshot))
    await world.bound("copy")
    await world.until(SNAPSHOT, "snap", lambda snapshot: SNAPSHOT_FINALIZER not in finalizers(snapshot))
    assert "snap-" in world.calls("CreateVolume")[-1].source
    await world.delete(CLAIM, "copy", "data")
    await world.nothing_left()


async def test_a_snapshot_deleted_while_it_is_restored_stays_until_then(world: World) -> None:
    world.rules(Rule(match="/copy$", delay=HOLD))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    await world.snapshot("snap", (await world.bound("data"))["spec"]["csi"]["volumeHandle"])
    await world.claim("copy", **from_snapshot("snap"))
    await world.until(SNAPSHOT, "snap", lambda snapshot: SNAPSHOT_FINALIZER in finalizers(snapshot))
    await world.delete(SNAPSHOT, "snap")
    assert await world.get(SNAPSHOT, "snap") is not None
    await world.bound("copy")
    await world.gone(SNAPSHOT, "snap")


async def test_a_source_claim_is_protected_while_it_is_cloned(world: World) -> None:
    world.rules(Rule(match="/copy$", delay=HOLD))
    await world.start()
    await world.storage_class()
    await world.claim("data")
    handle = (await world.bound("data"))["spec"]["csi"]["volumeHandle"]
    await world.claim("copy", **from_claim("data"))
    await world.until(CLAIM, "data", lambda claim: CLONE_FINALIZER in finalizers(claim))
    await world.delete(CLAIM, "data")
    assert CLONE_FINALIZER in finalizers(await world.get(CLAIM, "data"))
    assert handle in world.volumes()
    await world.bound("copy")
    assert world.calls("CreateVolume")[-1].source == handle
    await world.gone(CLAIM, "data")
    await world.delete(CLAIM, "copy")
    await world.nothing_left()


async def test_secrets_by_template_and_for_the_deletion_without_the_class(world: World) -> None:
    await world.start()
    parameters = {"secret-name": "of-${pvc.name}", "secret-namespace": "${pvc.namespace}"}
    prefixed = {f"csi.storage.k8s.io/provisioner-{name}": value for name, value in parameters.items()}
    await world.storage_class(parameters=prefixed | {"tier": "gold"})
    await world.claim("data")
    await world.event("data", "ProvisioningFailed", lambda event: "of-data" in event["message"])
    assert world.calls("CreateVolume") == []
    await world.create(SECRET, secret("of-data", user="admin"))
    volume = await world.bound("data")
    [call] = world.calls("CreateVolume")
    assert call.secrets in (held(user="admin"), {"user": "***stripped***"})
    assert call.parameters["tier"] == "gold"
    assert not any("secret" in name for name in call.parameters)
    annotations = volume["metadata"]["annotations"]
    assert annotations["volume.kubernetes.io/provisioner-deletion-secret-name"] == "of-data"
    assert annotations["volume.kubernetes.io/provisioner-deletion-secret-namespace"] == world.api.ns
    assert "admin" not in world.log()
    await world.delete(CLASS, world.class_name)
    await world.delete(CLAIM, "data")
    [deleted] = await world.asked("DeleteVolume")
    assert deleted.secrets == call.secrets
    await world.nothing_left()


async def test_an_attributes_class_becomes_mutable_parameters(world: World) -> None:
    await world.start()
    await world.storage_class()
    name = world.api.unique("fast")
    await world.create(
        ATTRIBUTES, {"metadata": {"name": name}, "driverName": world.driver, "parameters": {"iops": "9000"}}
    )
    await world.claim("data", volumeAttributesClassName=name)
    volume = await world.bound("data")
    assert volume["spec"]["volumeAttributesClassName"] == name
    assert world.calls("CreateVolume")[0].mutable_parameters == {"iops": "9000"}
