"""What the log says of one claim can be found by its name and by its UID (process.md 9.2)."""

import json
from typing import Any

import pytest

from csi_provisioner.settings import CapacitySettings, ElectionSettings, LogSettings, RetrySettings
from tests.installation import CLAIM, VOLUME, Installation
from tests.journeys.objects import from_claim

VERBOSE = LogSettings(json=True, verbosity=5)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_every_line_of_a_claims_work_names_it_with_its_uid(
    site: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    site.fault("INTERNAL", times=1)
    site.refuse("create", VOLUME, 500, times=1)
    site.storage_class()
    site.claim("source")
    site.claim(**from_claim("source"))
    await site.start(log=VERBOSE)
    await site.bound("source", "data")
    volume, uid = site.volume_of("data"), site.get(CLAIM, "data")["metadata"]["uid"]
    await site.rest(1)
    lines = [line for line in _lines(capsys) if uid in str(line) or "default/data" in str(line)]
    for line in lines:
        of_event = (line.get("object"), line.get("objectUID")) == ("default/data", uid)
        assert of_event or (line["PVC"], line["PVCUID"]) == ("default/data", uid), line
    said = {line["msg"] for line in lines}
    assert said >= {"Failed, will be tried again", "GRPC call", "GRPC response", "Volume created", "Event occurred"}
    assert [line["PV"] for line in lines if line["msg"] == "PersistentVolume written"] == [volume]


async def test_and_every_line_of_a_volumes_deletion_the_volume_and_its_claim(
    site: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    site.storage_class()
    site.claim()
    await site.start(log=VERBOSE)
    await site.bound("data")
    name, claim = site.volume_of("data"), site.get(CLAIM, "data")["metadata"]["uid"]
    uid = site.get(VOLUME, name)["metadata"]["uid"]
    site.fault("INTERNAL", rpc="DeleteVolume", times=2)
    await site.rest(1)
    _lines(capsys)
    site.delete(CLAIM, "data")
    await site.until(lambda: site.find(VOLUME, name) is None)
    lines = [line for line in _lines(capsys) if line.get("queue") == "volumes" or "DeleteVolume" in str(line)]
    work = [line for line in lines if line["msg"] != "Event occurred"]
    assert {line["msg"] for line in work} >= {"Failed, will be tried again", "GRPC call", "GRPC response"}
    for line in work:
        assert (line["PV"], line["PVUID"], line["PVC"], line["PVCUID"]) == (name, uid, "default/data", claim), line
    assert {(line["object"], line["objectUID"]) for line in lines if line not in work} == {(name, uid)}


async def test_one_outage_of_the_api_server_is_one_line_and_its_end_another(site: Installation) -> None:
    """Not one a kind, nor one a client: of claims, of storage capacity, of the election."""
    election = ElectionSettings(enabled=True, namespace="default", lease_duration=200, renew_deadline=150)
    capacity = CapacitySettings(enabled=True, namespace="default", ownerref_level=-1)
    sweep = RetrySettings(snapshot_sweep_interval=25)
    await site.start(election=election, capacity=capacity, retries=sweep)
    for outage in range(2):
        site.refuse("*", "*", 503)
        site.api.cut_watches()
        await site.rest(30)
        site.api.clear()
        await site.rest(150)  # bookmarks have come
        told = [line for line in site.lines if line.level != "INFO"]
        assert [line.level for line in told] == ["ERROR"] * (outage + 1)
        assert (
            told[-1].keys["advice"]
            == "is the API server up and reachable, and does nothing on the way end connections?"
        )
        assert len(site.logged(" again")) == outage + 1


async def test_a_right_that_is_missing_is_told_of_each_kind(site: Installation) -> None:
    for kind in (VOLUME, CLAIM):
        site.refuse("list", kind, 403, times=3)
    await site.start()
    told = [line for line in site.lines if line.level != "INFO"]
    assert {(line.level, line.keys["kind"]) for line in told} == {("ERROR", VOLUME), ("ERROR", CLAIM)}
    assert len(told) == 2


async def test_a_failure_is_an_error_the_first_time_and_rarely_a_warning_when_it_repeats(
    site: Installation,
) -> None:
    """process.md 9.2."""
    site.storage_class()
    site.fault("INTERNAL")
    await site.start()
    before, claims = len(site.lines), 10
    for number in range(claims):
        site.claim(f"stuck-{number}")
    await site.rest(60)
    assert len(site.calls()) == 6 * claims
    assert len(site.lines) - before == 4 * claims
    told = [(line.level, line.keys["after"]) for line in site.logged("Failed, will be tried again")]
    assert sorted(set(told)) == [("ERROR", "1s"), ("WARNING", "16s"), ("WARNING", "32s")]
    assert all("INTERNAL" in str(line.keys["err"]).upper() for line in site.logged("Failed, will be tried again"))
