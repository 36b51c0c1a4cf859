"""The finalizer that keeps a source claim while it is cloned (provision.md 12.1 and 12.2)."""

from typing import Any

import msgspec
import pytest

from csi_provisioner.planning.wellknown import PROVISIONED_BY
from sandbox.driver.config import CONTROLLER_CAPABILITIES
from tests.installation import CLAIM, CLASS, VOLUME, Installation
from tests.journeys import objects
from tests.journeys.objects import CLONE_FINALIZER, from_claim

FIRST, LAST = "example.com/first", "example.com/last"


async def _source(site: Installation) -> None:
    site.storage_class()
    site.claim("source")
    await site.start()
    await site.bound("source")


async def _cloning(site: Installation, *names: str) -> None:
    """Clones that the driver is busy with."""
    await _source(site)
    site.fault(gate="copying", match="/clone")
    for name in names or ("clone",):
        site.claim(name, **from_claim("source"))
    await site.until(lambda: len(site.calls()) == 1 + len(names or ("clone",)))


def _our_updates(site: Installation) -> int:
    return len(site.requests.of("update", CLAIM, name="source"))


async def test_the_source_of_a_clone_is_protected_before_the_call_p19_sources_9(site: Installation) -> None:
    """provision.md 12.1."""
    await _cloning(site)
    assert CLONE_FINALIZER in site.finalizers(CLAIM, "source")
    assert site.calls()[1].request.volume_content_source.volume.volume_id in site.driver.state.volumes


async def test_a_source_is_protected_once_for_many_clones(site: Installation) -> None:
    """provision.md 12.1."""
    await _cloning(site, "clone-1", "clone-2", "clone-3")
    assert len(site.requests.of("update", CLAIM, name="source", code=200)) == 1
    site.driver.faults.gate("copying").set()
    await site.bound("clone-1", "clone-2", "clone-3")


@pytest.mark.parametrize("code", [403, 409, 500])
async def test_without_protection_of_the_source_there_is_no_call(site: Installation, code: int) -> None:
    """provision.md 12.1."""
    await _source(site)
    site.refuse("update", CLAIM, code, times=2, name="source")
    site.claim("clone", **from_claim("source"))
    failed = await site.event("clone", "ProvisioningFailed", 2)
    assert failed["message"].startswith("PersistentVolumeClaim default/source cannot be the source of claim default")
    assert len(site.calls()) == 1
    await site.bound("clone")
    assert len(site.calls()) == 2


async def test_a_deleted_source_stays_until_the_clone_is_bound_p19_sources_9(site: Installation) -> None:
    """provision.md 12.2."""
    await _cloning(site)
    site.delete(CLAIM, "source")
    await site.rest(5)
    assert site.finalizers(CLAIM, "source") == [CLONE_FINALIZER]
    site.driver.faults.gate("copying").set()
    await site.bound("clone")
    await site.until(lambda: site.find(CLAIM, "source") is None, limit=10)


async def test_a_deleted_clone_that_can_never_be_asked_for_again_does_not_hold_its_source(site: Installation) -> None:
    """As when all of it goes: the driver's last word would never come (provision.md 12.2)."""
    await _source(site)
    site.fault("DEADLINE_EXCEEDED", match="/clone$")
    site.claim("clone", **from_claim("source"))
    await site.until(lambda: len(site.calls()) == 3)
    site.delete(CLASS, "fast")
    site.delete(CLAIM, "clone")
    site.delete(CLAIM, "source")
    await site.until(lambda: site.find(CLAIM, "source") is None, limit=60)


async def test_nothing_of_the_cached_source_is_changed_p19_sources_8(site: Installation) -> None:
    """What others put beside our finalizer stays, in its order, though the cache may not know it yet
    (provision.md 12.2)."""
    site.storage_class()
    site.claim("source")
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].insert(0, FIRST))
    await site.start()
    await site.bound("source")
    site.fault(gate="copying", match="/clone")
    site.claim("clone", **from_claim("source"))
    await site.until(lambda: len(site.calls()) == 2)
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].append(LAST))
    site.driver.faults.gate("copying").set()
    await site.bound("clone")
    site.delete(CLAIM, "source")
    await site.until(lambda: CLONE_FINALIZER not in site.finalizers(CLAIM, "source"))
    assert site.finalizers(CLAIM, "source") == [FIRST, LAST]


async def test_a_source_is_let_go_in_one_request_with_all_that_we_do_not_model(site: Installation) -> None:
    """As in the reference, and soon enough for the volume controller's own finalizer to go after it
    (provision.md 12.2)."""
    await _source(site)
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].insert(0, FIRST))
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].append(CLONE_FINALIZER))
    site.edit(CLAIM, "source", lambda claim: claim["metadata"].update(annotations={"unknown": "kept"}))
    site.edit(CLAIM, "source", lambda claim: claim["spec"].update(volumeAttributesClassName="kept"))
    await site.rest(1)
    site.delete(CLAIM, "source")
    await site.until(lambda: CLONE_FINALIZER not in site.finalizers(CLAIM, "source"))
    left = site.get(CLAIM, "source")
    assert left["metadata"]["finalizers"] == [FIRST]
    assert left["metadata"]["annotations"]["unknown"] == "kept"
    assert left["spec"]["volumeAttributesClassName"] == "kept"
    assert site.requests.of("get", CLAIM, name="source") == []


async def test_a_source_that_is_cloned_from_is_looked_at_again_with_backoff(site: Installation) -> None:
    """A clone that is bound is no event of its source (provision.md 12.2)."""
    await _cloning(site)
    site.delete(CLAIM, "source")
    await site.rest(20)
    failed = [line.keys for line in site.logged("Failed, will be tried again")]
    said = [keys for keys in failed if keys["key"] == "default/source"]
    assert [keys["after"] for keys in said] == ["1s", "16s"]
    assert "still being cloned" in str(said[0]["err"])
    assert site.events("source", "ProvisioningFailed") == []


async def test_a_living_source_keeps_its_finalizer(site: Installation) -> None:
    """provision.md 12.2."""
    await _cloning(site)
    site.driver.faults.gate("copying").set()
    await site.bound("clone")
    await site.rest(2000)  # a resync is among that
    assert CLONE_FINALIZER in site.finalizers(CLAIM, "source")


async def test_clones_of_other_provisioners_hold_a_source(site: Installation) -> None:
    """provision.md 12.2."""
    await _source(site)
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].append(CLONE_FINALIZER))
    foreign = {"metadata": {"name": "foreign"}, "provisioner": "other.example.com", "volumeBindingMode": "Immediate"}
    site.objects.create(CLASS, foreign)
    site.claim("theirs", "foreign", **from_claim("source"))
    await site.rest(1)
    site.delete(CLAIM, "source")
    await site.rest(100)
    assert CLONE_FINALIZER in site.finalizers(CLAIM, "source")
    site.delete(CLAIM, "theirs")
    await site.until(lambda: site.find(CLAIM, "source") is None)


ANOTHERS = {"driver": "other.example.com", "volumeHandle": "vol-1"}


async def _source_of(site: Installation, **source: Any) -> None:
    """A claim that is being deleted and carries our finalizer, bound to a volume with this source."""
    volume = objects.static_volume("pv-1", "foreign", "", "")
    volume["spec"] = {name: value for name, value in volume["spec"].items() if name != "csi"} | source
    site.objects.create(VOLUME, volume)
    site.claim("source", "foreign", volumeName="pv-1")
    site.edit(CLAIM, "source", lambda claim: claim["metadata"].update(finalizers=[CLONE_FINALIZER]))
    site.edit(CLAIM, "source", lambda claim: claim.update(status={"phase": "Bound"}), status=True)
    site.delete(CLAIM, "source")


async def test_a_source_whose_volume_is_another_drivers_is_left_to_its_provisioner(site: Installation) -> None:
    """Which alone knows of clones whose claims are gone (provision.md 12.2)."""
    await _source_of(site, csi=ANOTHERS)
    await site.start()
    await site.rest(1000)  # a resync is among that
    assert site.finalizers(CLAIM, "source") == [CLONE_FINALIZER]
    site.delete(VOLUME, "pv-1")
    site.edit(VOLUME, "pv-1", lambda volume: volume["metadata"].pop("finalizers"))
    await site.until(lambda: site.find(CLAIM, "source") is None, limit=1000)  # nothing can be cloned from it now


async def test_a_source_of_which_no_driver_can_clone_is_let_go(site: Installation) -> None:
    """provision.md 12.2."""
    await _source_of(site, hostPath={"path": "/srv"})
    await site.start()
    await site.until(lambda: site.find(CLAIM, "source") is None, limit=5)


@pytest.mark.parametrize("code", [403, 500])
async def test_a_source_whose_volume_cannot_be_read_stays_until_it_can(site: Installation, code: int) -> None:
    """provision.md 12.2."""
    await _source_of(site, hostPath={"path": "/srv"})
    trouble = site.refuse("get", VOLUME, code, times=3, name="pv-1")
    await site.start()
    await site.until(lambda: site.find(CLAIM, "source") is None)
    assert trouble.hits == 3


async def test_a_source_whose_volume_names_our_driver_is_let_go_whoever_made_it(site: Installation) -> None:
    """As after a driver was renamed (provision.md 12.2)."""
    await _source_of(site, csi={"driver": site.config.name, "volumeHandle": "vol-1"})
    site.edit(VOLUME, "pv-1", lambda volume: volume["metadata"].update(annotations={PROVISIONED_BY: "old.example.com"}))
    await site.start()
    await site.until(lambda: site.find(CLAIM, "source") is None, limit=5)


async def test_claims_of_another_namespace_do_not_hold_a_source(site: Installation) -> None:
    """provision.md 12.2."""
    await _source(site)
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].append(CLONE_FINALIZER))
    site.objects.create("Namespace", {"metadata": {"name": "elsewhere"}})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none"}
    there = {"metadata": {"name": "clone"}, "spec": spec | from_claim("source")}
    site.objects.create(CLAIM, there, "elsewhere")
    site.delete(CLAIM, "source")
    await site.until(lambda: site.find(CLAIM, "source") is None, limit=5)


@pytest.mark.parametrize("code", [403, 409, 500, 503])
async def test_a_release_of_a_source_that_fails_is_tried_again(site: Installation, code: int) -> None:
    """provision.md 12.2."""
    await _source(site)
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].append(CLONE_FINALIZER))
    await site.rest(1)
    trouble = site.refuse("update", CLAIM, code, times=3, name="source")
    site.delete(CLAIM, "source")
    await site.until(lambda: site.find(CLAIM, "source") is None)
    assert trouble.hits == 3


async def test_a_source_that_is_gone_meanwhile_is_let_go(site: Installation) -> None:
    """provision.md 12.2."""
    await _source(site)
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].append(CLONE_FINALIZER))
    await site.rest(1)
    trouble = site.refuse("update", CLAIM, 404, name="source")
    site.delete(CLAIM, "source")
    await site.rest(100)
    assert trouble.hits == 1
    assert site.logged("Failed, will be tried again") == []


async def test_a_404_that_does_not_name_the_source_is_tried_again(site: Installation) -> None:
    """provision.md 12.2."""
    await _source(site)
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].append(CLONE_FINALIZER))
    await site.rest(1)
    trouble = site.refuse("update", CLAIM, 404, name="source", page="404 page not found\n", times=3)
    site.delete(CLAIM, "source")
    await site.until(lambda: site.find(CLAIM, "source") is None, limit=20)
    assert trouble.hits == 3


async def test_a_driver_that_cannot_clone_has_no_sources_to_let_go(site: Installation) -> None:
    """provision.md 12.2."""
    without = tuple(name for name in CONTROLLER_CAPABILITIES if name != "CLONE_VOLUME")
    site.driver.config = site.config = msgspec.structs.replace(site.config, controller=without)
    site.kill_driver()
    await site.rest(0.1)
    await site.serve()
    await _source(site)
    site.edit(CLAIM, "source", lambda claim: claim["metadata"]["finalizers"].append(CLONE_FINALIZER))
    site.delete(CLAIM, "source")
    await site.rest(100)
    assert site.finalizers(CLAIM, "source") == [CLONE_FINALIZER]
    assert _our_updates(site) == 0
    assert (await site.metrics())['workqueue_depth{name="claims"}'] == 0  # nor does anything wait for it
