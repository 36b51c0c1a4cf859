"""Deletions that fail: told on the volume, tried for ever, each volume by itself (delete.md 1, 6, 7 and 9)."""

import msgspec
import pytest
import trio

from csi_provisioner.settings import NodeSettings
from tests.canary import held
from tests.deletion.released import PROVISIONED_BY, reconfigured, released
from tests.installation import CLASS, VOLUME, Installation
from tests.journeys.objects import VOLUME_FINALIZER

CODES = ["NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED", "UNAVAILABLE"]
HERE, THERE = {"zone": "here"}, {"zone": "there"}


async def _gone(site: Installation, name: str = "pv") -> None:
    await site.until(lambda: site.find(VOLUME, name) is None)


@pytest.mark.parametrize("code", CODES)
async def test_every_error_of_a_deletion_is_tried_again_with_backoff_d13_12(site: Installation, code: str) -> None:
    """delete.md 7."""
    released(site)
    site.fault(code, rpc="DeleteVolume", times=4)
    await site.start()
    await _gone(site)
    assert site.pauses("DeleteVolume") == [1.0, 2.0, 4.0, 8.0]


async def test_a_deletion_is_tried_for_ever_d13_12(site: Installation) -> None:
    """delete.md 7."""
    released(site)
    site.fault("INTERNAL", rpc="DeleteVolume")
    await site.start()
    await site.rest(2 * 3600)
    assert site.pauses("DeleteVolume")[-3:] == [300.0] * 3
    assert site.find(VOLUME, "pv")
    site.driver.faults.clear()
    await _gone(site)


async def test_each_volume_has_its_own_backoff_d13_12(site: Installation) -> None:
    """delete.md 1."""
    released(site, "old")
    site.fault("INTERNAL", rpc="DeleteVolume", match="old")
    await site.start()
    await site.rest(1000)
    released(site, "new")
    site.fault("INTERNAL", rpc="DeleteVolume", match="new", times=2)
    since = trio.current_time()
    await _gone(site, "new")
    assert trio.current_time() - since < 4


async def test_a_deletion_that_fails_is_told_on_the_volume(site: Installation) -> None:
    """delete.md 6."""
    handle = released(site)
    site.fault("INTERNAL", rpc="DeleteVolume", message="pool is on fire", times=3)
    await site.start()
    event = await site.event("pv", "VolumeFailedDelete", 3)
    assert (event["type"], event["metadata"]["namespace"]) == ("Warning", "default")
    assert event["involvedObject"]["kind"] == VOLUME
    assert event["involvedObject"]["uid"] == site.get(VOLUME, "pv")["metadata"]["uid"]
    for fact in (site.config.name, "volume pv", "Internal", "pool is on fire", "attempt 3", "next try in 4 s"):
        assert fact in event["message"]
    assert len(site.events("pv")) == 1
    assert VOLUME_FINALIZER in site.finalizers(VOLUME, "pv")
    assert site.requests.of("delete", VOLUME) == []
    assert handle in site.driver.state.volumes
    await _gone(site)
    assert len(site.events("pv")) == 1  # none of a success
    found = await site.metrics()
    assert found['controller_persistentvolume_delete_failed_total{class="fast"}'] == 3


async def test_a_volume_without_a_csi_source_is_told_and_waits(site: Installation) -> None:
    """delete.md 7."""
    released(site, csi=None, hostPath={"path": "/somewhere"})
    await site.start()
    event = await site.event("pv", "VolumeFailedDelete")
    assert "no CSI source" in event["message"]
    assert site.calls("DeleteVolume") == []


async def test_a_driver_that_cannot_delete_is_told_and_not_asked(site: Installation) -> None:
    """delete.md 7."""
    await reconfigured(site, msgspec.structs.replace(site.config, controller=("GET_CAPACITY",)))
    released(site)
    await site.start()
    event = await site.event("pv", "VolumeFailedDelete", 3)
    assert "CREATE_DELETE_VOLUME" in event["message"]
    assert site.calls("DeleteVolume") == []


# ---- migrated volumes, and nodes


async def test_calls_for_migrated_volumes_are_labelled_d13_16(site: Installation) -> None:
    """delete.md 7."""
    await reconfigured(site, msgspec.structs.replace(site.config, name="ebs.csi.aws.com"))
    released(
        site,
        annotations={PROVISIONED_BY: "kubernetes.io/aws-ebs"},
        awsElasticBlockStore={"volumeID": "vol-0123", "fsType": "ext4"},
    )
    released(site, "new")
    await site.start()
    await _gone(site, "new")
    await _gone(site)
    assert "vol-0123" in {call.request.volume_id for call in site.calls("DeleteVolume")}
    found = await site.metrics()
    for migrated in ("true", "false"):
        labels = (
            'driver_name="ebs.csi.aws.com",grpc_status_code="OK",'
            f'method_name="/csi.v1.Controller/DeleteVolume",migrated="{migrated}"'
        )
        assert found[f"csi_sidecar_operations_seconds_count{{{labels}}}"] == 1


def _affinity(segment: dict[str, str]) -> dict[str, object]:
    expressions = [{"key": key, "operator": "In", "values": [value]} for key, value in segment.items()]
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}


async def test_volumes_of_other_nodes_are_left_in_silence_d13_13(site: Installation) -> None:
    """delete.md 7.1."""
    local = msgspec.structs.replace(
        site.config, node_segment=HERE, plugin=("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
    )
    await reconfigured(site, local)
    released(site, "theirs", nodeAffinity=_affinity(THERE))
    released(site, "ours", nodeAffinity=_affinity(HERE))
    released(site, "anywhere")
    await site.start(nodes=NodeSettings(enabled=True, node_name="node-1"))
    await _gone(site, "ours")
    await _gone(site, "anywhere")
    await site.rest(2000)
    assert site.find(VOLUME, "theirs")
    assert len(site.calls("DeleteVolume")) == 2
    assert site.events("theirs") == []
    assert site.logged("Failed, will be tried again") == []


async def test_the_class_of_a_volume_is_not_read_from_the_api_d13_14(site: Installation) -> None:
    """delete.md 12."""
    site.secret("login", user="u1")
    prefix = "csi.storage.k8s.io/provisioner-secret"
    site.storage_class(parameters={f"{prefix}-name": "login", f"{prefix}-namespace": "default"})
    released(site)
    await site.start()
    await _gone(site)
    assert site.calls("DeleteVolume")[0].request.secrets == held(user="u1")
    assert site.requests.of("get", CLASS) == []
