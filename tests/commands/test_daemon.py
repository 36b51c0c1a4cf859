"""What a command learns from the provisioner that runs beside it: how it was started, and what it knows of a claim."""

from pathlib import Path

import pytest

from csi_provisioner.commands import check, daemon
from csi_provisioner.logs import log
from csi_provisioner.model.live import Live, LiveClaim
from csi_provisioner.settings import ElectionSettings, ProvisioningSettings, RetrySettings, Settings
from tests.installation import CLAIM, NAMESPACE, Installation

ELECTION = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)


async def live(site: Installation, claim: str = "") -> Live:
    uid = site.get(CLAIM, claim)["metadata"]["uid"] if claim else ""
    found = await daemon.ask({"csi-address": site.cluster.socket(site.config)}, uid)
    assert isinstance(found, Live), found
    return found


async def of_claim(site: Installation, claim: str = "data") -> LiveClaim:
    found = (await live(site, claim)).claim
    assert found is not None
    return found


async def test_settings_driver_and_leadership_are_told(site: Installation) -> None:
    await site.start(retries=RetrySettings(start=3.0), election=ELECTION)
    found = await live(site)
    assert found.flags["retry-interval-start"] == "3s"
    assert found.flags["leader-election"] == "true"
    assert (found.driver.name, found.driver.ready) == (site.config.name, True)
    assert "CREATE_DELETE_VOLUME" in found.driver.controller
    assert found.driver.version
    assert found.works
    assert found.leadership.leads
    assert found.leadership.holder == found.leadership.identity != ""
    assert found.leadership.lease == "default/sandbox-csi-example-com"
    assert found.leadership.since is not None


async def test_one_that_stands_by_says_who_leads(site: Installation) -> None:
    now = "2026-01-01T00:00:00.000000Z"
    spec = {"holderIdentity": "other", "leaseDurationSeconds": 3600, "acquireTime": now, "renewTime": now}
    site.objects.create("Lease", {"metadata": {"name": "sandbox-csi-example-com"}, "spec": spec}, NAMESPACE)
    site._nursery.start_soon(lambda: site.start(election=ELECTION))
    await site.until(lambda: site.logged("The lease has a holder"))
    site.claim()
    found = await live(site, "data")
    assert (found.works, found.claim, found.leadership.leads) == (False, None, False)
    assert found.leadership.holder == "other"
    assert found.leadership.since is not None
    assert found.leadership.since > 0


async def test_a_driver_that_has_not_answered_yet_is_told_too(site: Installation) -> None:
    site.kill_driver()
    site._nursery.start_soon(site.start)
    await site.until(lambda: site.logged("Waiting for the CSI driver"))
    found = await live(site)
    assert (found.driver.name, found.driver.ready, found.works) == ("", False, False)
    await site.serve()
    await site.until(lambda: site.logged("Caches are synced"))


async def test_of_a_claim_that_fails_its_tries_and_the_next_one_are_told(site: Installation) -> None:
    await site.start(
        retries=RetrySettings(start=100.0),
        provisioning=ProvisioningSettings(extra_create_metadata=True, volume_journal="on"),
        election=ELECTION,
    )
    site.storage_class()
    site.fault("RESOURCE_EXHAUSTED", match="data")
    site.claim()
    await site.event("data", "ProvisioningFailed")
    await site.rest(10)
    found = await of_claim(site)
    assert found.cached
    assert (found.work.tries, found.work.running) == (1, None)
    assert found.work.due is not None
    assert 85 < found.work.due < 91
    assert found.work.last is not None
    assert found.work.last.kind == "ResourceExhausted"
    assert "claim default/data" in found.work.last.text
    assert 9 < found.work.last.ago < 11
    assert not found.uncertain


async def test_of_a_claim_in_flight_the_age_of_the_call_and_its_journal_entry_are_told(site: Installation) -> None:
    await site.start(call_timeout=300.0, election=ELECTION)
    site.storage_class()
    site.fault(delay=100.0, times=1)
    site.claim()
    await site.until(lambda: site.asked and site.asked[-1][1].rpc == "CreateVolume")
    await site.rest(20)
    found = await of_claim(site)
    assert found.calling is not None
    assert 19 < found.calling < 22
    assert found.uncertain
    assert found.journal is not None
    assert (found.journal.volume, found.journal.durable) == (site.volume_of("data"), True)
    await site.bound("data")
    found = await of_claim(site)
    assert (found.calling, found.uncertain, found.work.due, found.unsaved) == (None, False, None, "")


async def test_of_a_volume_that_cannot_be_written_its_id_and_the_answer_are_told(site: Installation) -> None:
    await site.start()
    site.storage_class()
    refusal = site.refuse("create", "PersistentVolume", 500)
    site.claim()
    await site.until(lambda: site.calls())
    await site.rest(30)
    found = await of_claim(site)
    assert found.unsaved == site.volume_of("data")
    assert found.unsaved_id
    assert found.saving.last is not None
    assert found.saving.last.kind == "api 500"
    refusal.times = 0
    await site.bound("data")


async def test_a_command_asks_with_the_provisioners_flags_and_those_given_win(
    site: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    retries = RetrySettings(class_workers=(("fast", 5),))
    await site.start(call_timeout=7.0, retries=retries, provisioning=ProvisioningSettings(volume_name_prefix="vol"))
    monkeypatch.setattr(log, "quiet", True)
    seen: list[Settings] = []

    async def answer(settings: Settings, _wanted: check.Wanted) -> int:
        seen.append(settings)
        return 0

    async def asked(*flags: str) -> Settings:
        address = f"--csi-address=unix://{site.cluster.socket(site.config)}"
        assert await check.COMMAND.asked([address, *flags], {}, check.wanted_of, answer) == 0
        return seen[-1]

    found = await asked("--timeout=9s", "-v=3", "--class-workers=slow=1")
    assert found.retries.class_workers == (("slow", 1),)
    assert found.cluster.kubeconfig == str(tmp_path / "kubeconfig")
    assert found.provisioning.volume_name_prefix == "vol"
    assert (found.csi.timeout, found.csi.expected_driver) == (9.0, site.config.name)
    assert (found.http.endpoint, found.logging.verbosity) == ("", 3)
    assert f"for {site.config.name}" in capsys.readouterr().err
    # Another cluster: whatever runs here is somebody else's.
    found = await asked("--kubeconfig=/another")
    assert (found.csi.timeout, found.provisioning.volume_name_prefix) == (10.0, "pvc")
