"""How claims are worked on: what wakes them, what is asked for and what is not (provision.md 2 to 5 and 19)."""

import msgspec
import pytest

from csi_provisioner.planning.wellknown import MIGRATED_TO
from csi_provisioner.settings import CapacitySettings, Gates, LogSettings, ProvisioningSettings
from tests.installation import CLAIM, CLASS, NAMESPACE, PROVISIONING, VOLUME, Installation

CHOSEN = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")


async def test_an_update_while_a_try_runs_is_not_lost_p19_engine_3(site: Installation) -> None:
    """The try that runs has not seen it; the next follows at once, and not only after the backoff."""
    site.fault("INTERNAL", gate="running", times=1)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    site.edit(CLAIM, "data", lambda claim: claim["metadata"].setdefault("annotations", {}).update(note="new"))
    await site.rest(5)
    assert len(site.calls()) == 1
    site.driver.faults.gate("running").set()
    await site.bound("data")
    assert site.pauses() == [pytest.approx(5.0, abs=0.2)]


async def test_never_two_tries_of_a_claim_at_once_p19_engine_3(site: Installation) -> None:
    site.fault("ABORTED", delay=2.0, times=5)
    site.storage_class()
    site.claim()
    await site.start()
    running = []
    for value in range(40):
        site.touch(CLAIM, "data", str(value))
        await site.rest(0.2)
        running.append(len(site.driver.made("CreateVolume", running=True)))
    assert max(running) == 1


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "ABORTED"])
async def test_one_attempt_one_call_p19_engine_6(site: Installation, code: str) -> None:
    """Nothing is repeated inside an attempt: each call has its own event, its own count, its own pause."""
    site.fault(code, times=4)
    site.storage_class()
    site.claim()
    await site.start()
    await site.event("data", "ProvisioningSucceeded")
    assert len(site.calls()) == (await site.event("data", "Provisioning", 5))["count"] == 5
    assert all(pause >= 1 for pause in site.pauses())


async def test_claims_of_others_cause_no_work_and_no_noise_p19_engine_8(site: Installation) -> None:
    fields = {"provisioner": "other.example.com", "volumeBindingMode": "Immediate"}
    site.objects.create(CLASS, {"metadata": {"name": "theirs"}} | fields)
    names = [f"theirs-{number}" for number in range(30)]
    for name in names:
        site.claim(name, "theirs")
    site.claim("nobodys", "no-such-class")
    await site.start(log=LogSettings(verbosity=4))
    await site.rest(30)  # our rights are looked at once the caches are whole
    heard = len(site.lines)
    asked = len(site.requests)
    for value in range(5):
        for name in names:
            site.touch(CLAIM, name, str(value))
        await site.rest(10)
    assert site.lines[heard:] == []
    assert [call for call in list(site.requests)[asked:] if call.verb not in ("list", "watch")] == []
    assert site.objects.all("Event") == []
    assert (await site.metrics())['workqueue_adds_total{name="claims"}'] == 0


async def test_both_annotations_name_the_provisioner_p19_engine_12(site: Installation) -> None:
    """As the volume controller writes them, and the older one alone; taken over, the name alone is not enough."""
    site.objects.create(CLASS, {"metadata": {"name": "fast"}, "provisioner": site.config.name})
    site.claim("beta")
    site.edit(CLAIM, "beta", lambda claim: claim["metadata"].update(annotations={CHOSEN[1]: site.config.name}))
    site.claim("handed", "none")
    site.edit(CLAIM, "handed", lambda claim: claim["metadata"].update(annotations={MIGRATED_TO: site.config.name}))
    await site.start()
    await site.bound("beta")
    await site.rest(10)
    assert len(site.calls()) == 1


async def test_what_was_deleted_while_the_watch_was_down_p19_engine_9(site: Installation) -> None:
    """No event tells of it, only the next list does: claims that failed, are held off, or were bound meanwhile."""
    site.fault("INTERNAL", match="/failing$")
    site.fault("INVALID_ARGUMENT", match="/infeasible$")
    site.storage_class()
    for name in ("failing", "infeasible", "bound"):
        site.claim(name)
    await site.start()
    await site.bound("bound")
    await site.until(lambda: len(site.calls()) >= 4)
    for kind in (CLAIM, VOLUME):
        site.refuse("list", kind, 503, times=3)
        site.refuse("watch", kind, 410, times=1)
        site.api.cut_watches(kind)
    for name in ("failing", "infeasible"):
        site.delete(CLAIM, name)
    old = site.volume_of("bound")
    site.delete(CLAIM, "bound")
    await site.until(lambda: site.find(VOLUME, old) is None)
    await site.rest(30)
    calls = len(site.calls())
    await site.rest(1000)
    assert len(site.calls()) == calls
    assert site.driver.state.volumes == {}
    site.driver.faults.clear()
    for name in ("failing", "infeasible", "bound"):
        site.claim(name)
    await site.bound("failing", "infeasible", "bound")
    assert len(site.calls()) == calls + 3


async def test_a_volume_deleted_unseen_begins_anew_under_its_name_p19_engine_9(site: Installation) -> None:
    """The failures of the volume that is gone are not those of the next one of its name."""
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    name = site.volume_of("data")
    stored = msgspec.json.decode(msgspec.json.encode(site.get(VOLUME, name)))
    site.fault("INTERNAL", rpc="DeleteVolume")
    site.delete(CLAIM, "data")
    await site.until(lambda: len(site.calls("DeleteVolume")) == 6)
    site.refuse("list", VOLUME, 503, times=2)
    site.refuse("watch", VOLUME, 410, times=1)
    site.api.cut_watches(VOLUME)
    site.edit(VOLUME, name, lambda volume: volume["metadata"].pop("finalizers"))
    site.delete(VOLUME, name)
    synced = len(site.requests.of("list", VOLUME, code=200))
    await site.until(lambda: len(site.requests.of("list", VOLUME, code=200)) > synced, limit=20)
    calls = len(site.calls("DeleteVolume"))  # the next one would be 32 s after the last
    fresh = {"name": name, "annotations": stored["metadata"]["annotations"]}
    site.objects.create(VOLUME, {"metadata": fresh, "spec": stored["spec"]})
    await site.until(lambda: len(site.calls("DeleteVolume")) == calls + 3)
    assert site.pauses("DeleteVolume")[-2:] == [1.0, 2.0]


async def test_a_404_that_does_not_name_the_claim_does_not_settle_it(site: Installation) -> None:
    """The claim was bound and is gone, and the cache does not know: asked for until somebody answers who does."""
    site.fault(delay=1.0)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    site.api.stall_watches(CLAIM)
    await site.bound("data")
    site.delete(CLAIM, "data")
    await site.until(lambda: not site.driver.state.volumes)
    trouble = site.refuse("get", CLAIM, 404, page="404 page not found\n", times=3)
    site.delete(CLASS, "fast")
    await site.rest(0.1)
    site.storage_class()  # made anew, it wakes up the claims that seem to wait for it
    await site.until(lambda: trouble.hits == 3, limit=60)
    await site.rest(10)
    assert len(site.requests.of("get", CLAIM)) == 4
    assert len(site.calls()) == 1


async def test_lookups_are_in_caches_p19_engine_10_d13_14(site: Installation) -> None:
    site.storage_class()
    site.claim()
    site.fault("INTERNAL", times=5)
    await site.start()
    await site.bound("data")
    site.delete(CLAIM, "data")
    await site.until(lambda: not site.driver.state.volumes and not site.objects.all(VOLUME))
    for kind in (CLAIM, VOLUME, CLASS, "Node", "CSINode"):
        assert site.requests.of("get", kind) == []
        assert len(site.requests.of("list", kind)) <= 1


async def test_the_driver_is_asked_who_it_is_once_a_life_p19_engine_11(site: Installation) -> None:
    once = ("GetPluginInfo", "GetPluginCapabilities", "ControllerGetCapabilities")
    site.storage_class()
    for number in range(20):
        site.claim(f"data-{number}")
    await site.start()
    await site.bound(*[f"data-{number}" for number in range(20)])
    await site.rest(1000)
    assert [len(site.calls(rpc)) for rpc in once] == [1, 1, 1]
    site.driver.break_connections()
    await site.until(lambda: site.logged("CSI driver is back"))
    await site.rest(1000)
    assert [len(site.calls(rpc)) for rpc in once] == [2, 2, 2]


# ---- VolumeAttributesClass


def _attributes(site: Installation, **parameters: str) -> None:
    gold = {"metadata": {"name": "gold"}, "driverName": site.config.name, "parameters": parameters}
    site.objects.create("VolumeAttributesClass", gold)


async def test_the_parameters_of_an_attributes_class_are_the_mutable_ones_p19_request_9(site: Installation) -> None:
    """provision.md 8.10."""
    _attributes(site, iops="100")
    site.storage_class(parameters={"pool": "a"})
    site.claim(volumeAttributesClassName="gold")
    await site.start()
    await site.bound("data")
    [call] = site.calls()
    assert call.request.mutable_parameters == {"iops": "100"}
    assert call.request.parameters["pool"] == "a"
    assert site.get(VOLUME, site.volume_of("data"))["spec"]["volumeAttributesClassName"] == "gold"


@pytest.mark.parametrize(
    ("gates", "asked"),
    [(Gates(), False), (Gates(volume_attributes_class_explicit=True), True)],
    ids=["p19-request-9-discovered", "p19-request-9-named-by-the-user"],
)
async def test_an_attributes_class_is_asked_for_only_where_the_api_or_the_gate_says_so(
    site: Installation, gates: Gates, asked: bool
) -> None:
    """provision.md 8.10."""
    _attributes(site, iops="100")
    site.storage_class()
    site.claim(volumeAttributesClassName="gold")
    site.objects.kinds.remove(site.objects.kind("VolumeAttributesClass"))
    await site.start(gates=gates)
    if asked:
        await site.event("data", "ProvisioningFailed", 2)
        assert site.calls() == []
    else:
        await site.until(site.calls)
        assert site.calls()[0].request.mutable_parameters == {}
        assert site.logged("no VolumeAttributesClass")


async def test_with_the_gate_off_an_attributes_class_is_not_looked_at_p19_request_9(site: Installation) -> None:
    """provision.md 8.10."""
    site.storage_class()
    site.claim(volumeAttributesClassName="gold")
    off = ProvisioningSettings(volume_attributes_class=False)
    await site.start(gates=Gates(volume_attributes_class=False), provisioning=off)
    await site.until(site.calls)
    assert site.calls()[0].request.mutable_parameters == {}


# ---- the request


async def test_get_capacity_has_a_deadline_p19_request_11(site: Installation) -> None:
    site.kill_driver()
    await site.rest(0.1)
    plugin = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
    await site.serve(msgspec.structs.replace(site.config, plugin=plugin))
    site.cluster.node("node-1", site.config.name, zone="z-1")
    site.storage_class()
    site.fault(rpc="GetCapacity", hang=True)
    capacity = CapacitySettings(
        enabled=True, immediate_binding=True, ownerref_level=-1, namespace=NAMESPACE, pod_name="provisioner-0"
    )
    await site.start(capacity=capacity, call_timeout=7.0)
    await site.until(lambda: len(site.calls("GetCapacity")) == 2)
    assert [call.deadline for call in site.calls("GetCapacity")] == pytest.approx([7.0, 7.0], abs=0.1)


async def test_every_call_has_a_deadline_p19_request_11(site: Installation) -> None:
    site.fault(hang=True, times=1)
    site.storage_class()
    site.claim()
    await site.start(call_timeout=3.0)
    await site.bound("data")
    assert site.pauses() == [4.0]
    assert all(call.deadline == pytest.approx(3.0, abs=0.1) for _, call in site.asked)


async def test_retries_send_the_same_request(site: Installation) -> None:
    site.fault("DEADLINE_EXCEEDED", times=3)
    site.storage_class(parameters={"b": "2", "a": "1"}, mountOptions=["noatime"])
    site.claim()
    await site.start(provisioning=PROVISIONING)
    await site.bound("data")
    assert len({bytes(call.request) for call in site.calls()}) == 1
