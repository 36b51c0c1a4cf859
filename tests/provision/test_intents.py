"""The volume journal in a claim's way: what is in it while the driver is asked, and when it leaves (design.md 6)."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from csi_provisioner.planning import entries
from csi_provisioner.provision.journal_leases import ENTRIES
from csi_provisioner.settings import ElectionSettings, ProvisioningSettings, RetrySettings
from sandbox.api.faults import Fault as ApiFault
from sandbox.driver import Config, Pool
from tests.canary import held
from tests.installation import CLAIM, NAMESPACE, SECRET, VOLUME, Installation, installation

ELECTION = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)
ALONE = ElectionSettings(own_namespace=NAMESPACE)
HOLD = 15.0 + 10.0
TOLD = "A volume may be left over"
BOTH = pytest.mark.parametrize("election", [ELECTION, ALONE], ids=["elected", "alone"])


def journal(site: Installation) -> set[str]:
    """The volume names that stand in it."""
    found: set[str] = set()
    for lease in site.objects.all("Lease"):
        if "-journal-" in lease["metadata"]["name"]:
            found |= set(entries.unpack(lease["metadata"].get("annotations", {}).get(ENTRIES, "{}")))
    return found


async def made_and_killed(site: Installation, election: ElectionSettings, **fields: Any) -> str:
    """Killed when the driver has made the volume, and nobody has heard of it; the volume's name."""
    site.storage_class(**fields)
    await site.start(election=election)
    site.fault(delay=5.0, created=True, code="INTERNAL", times=1)
    site.claim()
    await site.until(lambda: site.driver.state.volumes)
    name = site.volume_of("data")
    assert journal(site) == {name}
    await site.kill()
    return name


@BOTH
async def test_an_entry_is_there_while_the_driver_works_and_goes_once_the_volume_is_written(
    site: Installation, election: ElectionSettings
) -> None:
    site.storage_class()
    await site.start(election=election)
    site.fault(delay=3.0, times=1)
    site.claim()
    await site.until(lambda: site.calls())
    assert journal(site) == {site.volume_of("data")}
    await site.bound("data")
    assert journal(site) == {site.volume_of("data")}
    await site.rest(6)
    assert journal(site) == set()


@BOTH
async def test_a_volume_whose_claim_is_gone_when_the_next_one_starts_is_deleted(
    site: Installation, election: ElectionSettings
) -> None:
    name = await made_and_killed(site, election)
    site.delete(CLAIM, "data")
    await site.start(election=election)
    await site.rest(HOLD - 5)
    assert len(site.driver.state.volumes) == 1
    assert journal(site) == {name}
    await site.until(lambda: not site.driver.state.volumes, limit=30)
    await site.rest(10)
    assert journal(site) == set()
    assert site.objects.all(VOLUME) == []
    assert site.logged(TOLD) == []


async def test_a_volume_whose_claim_lives_is_bound_by_the_next_one(site: Installation) -> None:
    name = await made_and_killed(site, ELECTION)
    await site.start(election=ELECTION)
    await site.bound("data")
    assert [volume.name for volume in site.driver.state.volumes.values()] == [name]
    await site.rest(HOLD + 20)
    assert journal(site) == set()
    assert len(site.objects.all(VOLUME)) == 1
    assert site.logged(TOLD) == []


async def test_what_a_class_keeps_is_told_and_not_deleted(site: Installation) -> None:
    await made_and_killed(site, ELECTION, reclaimPolicy="Retain")
    site.delete(CLAIM, "data")
    await site.start(election=ELECTION)
    await site.until(lambda: site.logged(TOLD), limit=60)
    assert len(site.driver.state.volumes) == 1
    [volume_id] = site.driver.state.volumes
    assert site.logged(TOLD)[0].keys["volumeID"] == volume_id
    await site.rest(10)
    assert journal(site) == set()


async def test_after_a_leader_without_journal_volumes_are_told_and_not_deleted(site: Installation) -> None:
    await made_and_killed(site, ELECTION)
    site.delete(CLAIM, "data")
    await site.start(election=ELECTION, provisioning=off())
    await site.rest(60)
    assert await site.stop() == 0
    await site.start(election=ELECTION)
    await site.until(lambda: site.logged(TOLD), limit=60)
    assert len(site.driver.state.volumes) == 1
    await site.rest(10)
    assert journal(site) == set()


def off() -> ProvisioningSettings:
    return ProvisioningSettings(extra_create_metadata=True, volume_journal="off")


async def test_switched_off_it_touches_nothing(site: Installation) -> None:
    site.storage_class()
    site.claim()
    await site.start(election=ALONE, provisioning=off())
    await site.bound("data")
    assert site.objects.all("Lease") == []


async def test_auto_needs_a_namespace_that_is_named(site: Installation) -> None:
    site.storage_class()
    site.claim()
    await site.start(election=ElectionSettings(enabled=True, namespace="default"))
    await site.bound("data")
    assert len(site.objects.all("Lease")) == 1


async def test_a_final_answer_ends_an_entry(site: Installation) -> None:
    site.storage_class()
    await site.start(election=ELECTION)
    site.fault("INVALID_ARGUMENT")
    site.claim()
    await site.event("data", "ProvisioningFailed")
    await site.rest(6)
    assert journal(site) == set()
    site.delete(CLAIM, "data")
    await site.rest(60)
    assert site.logged(TOLD) == []


@pytest.mark.parametrize("code", ["INTERNAL", "ALREADY_EXISTS", "UNKNOWN", "DATA_LOSS"])
async def test_a_code_that_drivers_give_for_all_kinds_of_trouble_ends_no_entry(site: Installation, code: str) -> None:
    site.storage_class()
    await site.start(election=ELECTION)
    site.fault(code, times=3, created=True)
    site.claim()
    await site.until(lambda: len(site.calls()) == 2)
    await site.rest(0.5)
    name = site.volume_of("data")
    assert journal(site) == {name}
    site.driver.faults.clear()
    site.delete(CLAIM, "data")
    await site.until(lambda: not site.driver.state.volumes)
    await site.rest(10)
    assert journal(site) == set()
    assert site.logged(TOLD) == []


async def test_after_an_uncertain_answer_a_final_one_is_no_certainty(site: Installation) -> None:
    """The driver has made it, said nothing, and refuses from then on without looking."""
    site.storage_class()
    await site.start(election=ELECTION)
    site.fault("DEADLINE_EXCEEDED", times=1, created=True)
    site.fault("OUT_OF_RANGE")
    site.claim()
    await site.until(lambda: len(site.calls()) >= 2)
    await site.rest(20)
    name = site.volume_of("data")
    assert journal(site) == {name}
    site.delete(CLAIM, "data")
    await site.until(lambda: site.logged(TOLD), limit=600)
    assert site.logged(TOLD)[0].keys["volume"] == name
    await site.rest(10)
    assert journal(site) == set()


async def test_a_claim_that_is_deleted_while_it_waits_for_the_journal_is_not_asked_for(site: Installation) -> None:
    site.storage_class()
    await site.start(election=ELECTION)
    site.api.add(ApiFault("update", "Lease", name="*-journal-00", delay=3.0))
    site.claim()
    await site.until(lambda: any(call.verb == "update" and "-journal-" in call.name for call in site.requests.of()))
    site.delete(CLAIM, "data")
    await site.rest(20)
    assert site.calls() == []
    assert journal(site) == set()
    assert site.logged(TOLD) == []


async def test_no_worker_is_held_while_claims_wait_for_the_journal(site: Installation) -> None:
    """One worker: a claim waits for the journal while another one is asked for, and needs no time of its own."""
    site.storage_class()
    await site.start(election=ELECTION, retries=RetrySettings(workers=1))
    site.api.add(ApiFault("update", "Lease", name="*-journal-00", delay=4.0, times=None))
    site.fault(delay=5.0)
    names = [f"data-{number}" for number in range(4)]
    for name in names:
        site.claim(name)
    started = trio.current_time()
    await site.bound(*names)
    assert 24 <= trio.current_time() - started < 30  # one after the other: 36


async def test_a_stop_that_cuts_calls_leaves_their_entries_and_suspects_nobody(site: Installation) -> None:
    site.storage_class()
    await site.start(election=ELECTION, call_timeout=600)
    site.fault(hang=True, match="/data$")
    site.claim()
    site.claim("done")
    await site.until(lambda: len(site.calls()) == 2)
    await site.bound("done")
    site.delete(CLAIM, "data")
    await site.rest(1)
    [name] = journal(site) - {site.volume_of("done")}
    assert await site.stop() == 0
    assert journal(site) == {name}
    assert site.logged(TOLD) == []


async def test_a_stop_in_order_leaves_an_empty_journal_and_the_lease_is_given_back_after_it(
    site: Installation,
) -> None:
    site.storage_class()
    await site.start(election=ELECTION)
    site.claim()
    await site.bound("data")
    assert journal(site) != set()
    assert await site.stop() == 0
    assert journal(site) == set()
    writes = [call.name for call in site.requests.of("update", "Lease")]
    assert "-journal-00" in writes[-2]
    assert "-journal-" not in writes[-1]


async def test_without_the_right_claims_go_on_and_the_right_is_named(site: Installation) -> None:
    site.refuse("*", "Lease", 403)
    site.storage_class()
    site.claim()
    await site.start(election=ALONE)
    await site.bound("data")
    [line] = site.logged("No volume journal")
    assert "grant get, create and update on leases" in line.keys["advice"]


async def test_with_on_claims_wait_for_the_right(site: Installation) -> None:
    fault = site.refuse("*", "Lease", 403)
    site.storage_class()
    site.claim()
    required = ProvisioningSettings(extra_create_metadata=True, volume_journal="on")
    await site.start(election=ALONE, provisioning=required)
    await site.rest(300)
    assert site.calls() == []
    fault.times = 0
    await site.bound("data")


async def test_a_volume_whose_name_another_one_has_is_told(site: Installation) -> None:
    site.storage_class()
    await site.start(election=ELECTION)
    site.objects.lag(VOLUME)
    site.fault(delay=3.0, times=1)
    site.claim()
    await site.until(lambda: site.calls())
    name = site.volume_of("data")
    source = {"driver": site.config.name, "volumeHandle": "somebody's"}
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": source}
    site.objects.create(VOLUME, {"metadata": {"name": name}, "spec": spec})
    await site.until(lambda: site.logged(TOLD))
    line = site.logged(TOLD)[0]
    [volume_id] = site.driver.state.volumes
    assert (line.keys["volumeID"], line.keys["volume"]) == (volume_id, name)
    assert "somebody's" in line.keys["reason"]


async def test_the_next_leader_asks_for_the_place_that_was_asked_for(anyio_backend: object, tmp_path: Path) -> None:
    """The driver may still be at it, and the cluster has other nodes since."""
    zone = "acme.test/zone"
    pools = tuple(Pool({zone: name}) for name in ("z-1", "z-2", "z-3"))
    config = Config(plugin=("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS"), pools=pools)
    async with installation(tmp_path, config) as site:
        for number in (1, 2):
            site.cluster.node(f"n{number}", config.name, zone=f"z-{number}")
        await made_and_killed(site, ELECTION)
        site.cluster.node("n3", config.name, zone="z-3")
        await site.start(election=ELECTION)
        await site.bound("data")
        first, second = (call.request.accessibility_requirements for call in site.calls())
        assert first is not None
        assert first == second


@pytest.mark.parametrize("secret", ["is there", "is gone"])
async def test_the_secret_of_a_volume_is_in_no_entry_and_is_read_again_for_its_deletion(
    site: Installation, secret: str
) -> None:
    site.secret("key", password="hunter2")
    reference = {
        "csi.storage.k8s.io/provisioner-secret-name": "key",
        "csi.storage.k8s.io/provisioner-secret-namespace": NAMESPACE,
    }
    name = await made_and_killed(site, ELECTION, parameters=reference)
    assert site.calls()[0].request.secrets == held(password="hunter2")
    lease = next(lease for lease in site.objects.all("Lease") if lease["metadata"]["name"].endswith("journal-00"))
    text = entries.unpack(lease["metadata"]["annotations"][ENTRIES])[name]
    assert b"hunter2" not in base64.b64decode(json.loads(text)["request"])
    assert json.loads(text)["secret"] == {"name": "key", "namespace": NAMESPACE}
    site.delete(CLAIM, "data")
    if secret == "is gone":
        site.delete(SECRET, "key")
    await site.start(election=ELECTION)
    await site.until(lambda: not site.driver.state.volumes, limit=60)
    sent = {} if secret == "is gone" else held(password="hunter2")
    assert [call.request.secrets for call in (site.calls()[-1], *site.calls("DeleteVolume"))] == [sent, sent]
    assert site.logged(TOLD) == []


async def test_the_source_of_a_copy_stays_until_its_entry_is_judged(site: Installation) -> None:
    site.storage_class()
    await site.start(election=ELECTION)
    site.claim("source")
    await site.bound("source")
    site.fault(delay=5.0, created=True, code="INTERNAL", match="/copy$", times=1)
    site.claim("copy", dataSource={"kind": CLAIM, "name": "source"})
    await site.until(lambda: len(site.driver.state.volumes) == 2)
    await site.kill()
    site.delete(CLAIM, "copy")
    site.delete(CLAIM, "source")
    await site.start(election=ELECTION)
    await site.rest(HOLD - 10)
    assert site.finalizers(CLAIM, "source") != []
    await site.until(lambda: not site.driver.state.volumes, limit=600)
    assert site.find(CLAIM, "source") is None
    assert site.logged(TOLD) == []
