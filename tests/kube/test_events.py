"""Events on the wire and on virtual time: what is written, how repeats merge, and that nobody is held up."""

import re

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube import events
from csi_provisioner.model.kubernetes import ObjectReference
from tests.kube.event_api import CLAIM, TEN_O_CLOCK, EventApi, recording
from tests.kube.objects import claim, volume

# What the API server takes as a name (RFC 1123)
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
def api() -> EventApi:
    return EventApi()


# ---- what is written


async def test_controls_in_a_message_are_escaped(api: EventApi) -> None:
    """It is what a driver or an API server said, and people read it on a terminal."""
    async with recording(api) as recorder:
        recorder.record(CLAIM, "Warning", "ProvisioningFailed", "größer\n\x1b[2J\x9b\u202e\u2028")
        await recorder.wait_written()
    assert api.only()["message"] == "größer\\n\\u001b[2J\\u009b\\u202e\\u2028"


async def test_an_event_of_a_claim_has_the_form_of_the_reference(api: EventApi) -> None:
    async with recording(api) as recorder:
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
    ((where, event),) = api.stored.items()
    assert where == f"/api/v1/namespaces/ns/events/c.{TEN_O_CLOCK:x}"
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"c.{TEN_O_CLOCK:x}", "namespace": "ns"},
        "involvedObject": {
            "kind": "PersistentVolumeClaim",
            "apiVersion": "v1",
            "name": "c",
            "namespace": "ns",
            "uid": "uid-c",
            "resourceVersion": "7",
        },
        "type": "Normal",
        "reason": "Provisioning",
        "message": "for claim",
        "source": {"component": "d_host_1"},
        "reportingComponent": "d_host_1",
        "count": 1,
        "firstTimestamp": "2026-10-17T10:00:00Z",
        "lastTimestamp": "2026-10-17T10:00:00Z",
    }


async def test_an_event_of_a_volume_goes_to_the_default_namespace(api: EventApi) -> None:
    async with recording(api) as recorder:
        recorder.record(volume("v", 3), "Warning", "VolumeFailedDelete", "attached")
        await recorder.wait_written()
    ((where, event),) = api.stored.items()
    assert where.startswith("/api/v1/namespaces/default/events/v.")
    assert sorted(event["involvedObject"]) == ["apiVersion", "kind", "name", "resourceVersion", "uid"]


async def test_what_is_long_is_cut_and_another_component_named(
    api: EventApi,
) -> None:
    about = ObjectReference(kind="Lease", apiVersion="coordination.k8s.io/v1", name="l" * 253, namespace="kube-system")
    async with recording(api) as recorder:
        recorder.record(about, "Normal", "LeaderElection", "m" * 5000, component="d/host")
        await recorder.wait_written()
    event = api.only()
    assert event["source"] == {"component": "d/host"}
    assert event["message"] == "m" * 1023 + "…"
    assert len(event["metadata"]["name"]) == 253


async def test_an_event_whose_namespace_is_gone_is_dropped_at_once(api: EventApi) -> None:
    api.always = (404, "NotFound", {"kind": "namespaces", "name": "ns"})
    async with recording(api) as recorder:
        before = trio.current_time()
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
        assert trio.current_time() == before


async def test_a_404_that_names_nothing_is_tried_again(api: EventApi) -> None:
    async with recording(api) as recorder:
        for message in ("first", "second"):
            api.script = [(404, "NotFound", {}), (404, "", {})]
            recorder.record(CLAIM, "Normal", "Provisioning", message)
            await recorder.wait_written()
    assert api.writes == ["new Provisioning x1", "Provisioning x2"], "and what is there is not made anew"


# ---- repeats


async def test_repeats_patch_count_and_newest_message(api: EventApi) -> None:
    async with recording(api) as recorder:
        for attempt in range(1, 4):
            recorder.record(CLAIM, "Warning", "ProvisioningFailed", f"attempt {attempt}", "Internal")
            await recorder.wait_written()
        recorder.record(CLAIM, "Warning", "ProvisioningFailed", "full", "ResourceExhausted")
        recorder.record(claim("d", 8), "Warning", "ProvisioningFailed", "attempt 1", "Internal")
        await recorder.wait_written()
    assert api.writes[:3] == ["new ProvisioningFailed x1", "ProvisioningFailed x2", "ProvisioningFailed x3"]
    assert sorted(e["message"] for e in api.stored.values()) == ["attempt 1", "attempt 3", "full"]
    assert len(api.writes) == 5


async def test_an_event_that_has_aged_out_is_made_again(api: EventApi) -> None:
    async with recording(api) as recorder:
        recorder.record(CLAIM, "Normal", "Provisioning", "first")
        await recorder.wait_written()
        api.stored.clear()
        recorder.record(CLAIM, "Normal", "Provisioning", "second")
        await recorder.wait_written()
    assert api.only()["count"] == 2
    assert api.only()["message"] == "second"


async def test_repeats_before_the_first_is_written_are_one_write(api: EventApi) -> None:
    async with recording(api) as recorder:
        for _ in range(100):
            recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
    assert api.writes == ["new Provisioning x100"]


async def test_events_of_one_object_keep_their_order(api: EventApi) -> None:
    api.slow = 0.1
    api.script = [(503, "busy"), (503, "busy")]
    async with recording(api) as recorder:
        for reason in ("Provisioning", "ProvisioningFailed", "ProvisioningSucceeded"):
            recorder.record(CLAIM, "Normal", reason, "")
        await trio.sleep(0.05)
        recorder.record(CLAIM, "Normal", "Provisioning", "again")
        await recorder.wait_written()
    assert [w.split()[1 if w.startswith("new") else 0] for w in api.writes] == [
        "Provisioning",
        "ProvisioningFailed",
        "ProvisioningSucceeded",
        "Provisioning",
    ]


async def test_after_a_burst_one_write_in_five_minutes(api: EventApi) -> None:
    async with recording(api) as recorder:

        async def repeat(times: int) -> int:
            for _ in range(times):
                recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
                await recorder.wait_written()
            return len(api.writes)

        assert await repeat(40) == 25
        recorder.record(claim("other", 1), "Normal", "Provisioning", "another object is not held back")
        await recorder.wait_written()
        assert len(api.writes) == 26
        await trio.sleep(301)
        assert await repeat(5) == 27
    assert api.writes[-1] == "Provisioning x41", "the count has missed nothing"


# ---- who is in the way of whom


async def test_a_failure_that_goes_on_is_told_and_not_its_beginnings(api: EventApi) -> None:
    """One write comes back in the time between two tries, and each try has two events."""
    async with recording(api) as recorder:
        for number in range(40):
            recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
            recorder.record(CLAIM, "Warning", "ProvisioningFailed", f"try {number}", "a" if number < 30 else "b")
            await recorder.wait_written()
            await trio.sleep(events.REFILL + 1)
    told = [event for event in api.stored.values() if event["reason"] == "ProvisioningFailed"]
    assert [(event["count"], event["message"]) for event in told] == [(30, "try 29"), (10, "try 39")]


async def test_what_is_new_is_told_whatever_was_before_and_then_waits_its_turn(api: EventApi) -> None:
    async with recording(api) as recorder:
        for _ in range(40):
            recorder.record(CLAIM, "Warning", "VolumeFailedDelete", "no")
            await recorder.wait_written()
        for number in range(40):
            recorder.record(CLAIM, "Warning", "VolumeDropped", "it is lost", f"class {number}")
            await recorder.wait_written()
    assert api.writes[int(events.BURST) - 1 :] == ["VolumeFailedDelete x25", "new VolumeDropped x1"]


@pytest.mark.parametrize("begun", [True, False])
async def test_an_end_is_told_whatever_was_before(api: EventApi, begun: bool) -> None:
    async with recording(api) as recorder:
        for number in range(int(events.BURST) - begun):
            recorder.record(CLAIM, "Warning", "ProvisioningFailed", "no", f"class {number}")
            await recorder.wait_written()
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim", hold=True)
        recorder.record(CLAIM, "Normal", "ProvisioningSucceeded", "done", ends="Provisioning")
        await trio.sleep(events.HELD + 1)
        await recorder.wait_written()
    assert api.writes[int(events.BURST) - begun :] == ["new ProvisioningSucceeded x1"]


@pytest.mark.parametrize("end", ["-", ".", ".-", "--", "b"])
async def test_a_long_name_is_cut_where_a_name_may_end(api: EventApi, end: str) -> None:
    name = ("a" * 300)[: events.LONGEST_NAME - 17 - len(end)] + end + "cccc"
    async with recording(api) as recorder:
        recorder.record(claim(name, 1), "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
    made = api.only()["metadata"]["name"]
    assert SUBDOMAIN.fullmatch(made)
    assert len(made) <= events.LONGEST_NAME


async def test_a_busy_server_is_asked_again_then_left_alone(api: EventApi) -> None:
    async with recording(api) as recorder:
        api.script = [(503, "busy"), (500, "broken"), "lost"]
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
        assert api.writes == ["new Provisioning x1"], "an answer that was lost does not make a second event"
        api.always = (503, "busy")
        begun = trio.current_time()
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
        assert trio.current_time() - begun == pytest.approx(1 + 2 + 4)
        api.always = None
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
    assert api.writes == ["new Provisioning x1", "Provisioning x3"]


async def test_a_server_that_wants_to_be_left_alone_is_not_asked_before(api: EventApi) -> None:
    api.always = (429, "TooManyRequests", {"retryAfterSeconds": 9})
    async with recording(api) as recorder:
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
    assert api.asked == 2, "at once and after 9 s; the third time would be too late for an event"


async def test_a_server_that_does_not_answer_holds_an_event_for_a_while_only(api: EventApi) -> None:
    api.slow = 3600
    async with recording(api) as recorder:
        begun = trio.current_time()
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
        assert trio.current_time() - begun == pytest.approx(events.LONGEST_TRY)


async def test_a_defect_costs_its_event_and_one_line(api: EventApi, capsys: pytest.CaptureFixture[str]) -> None:
    """Here a clock that no date can say."""
    clock = 10**40
    async with recording(api, now=lambda: clock) as recorder:
        for name in "abc":
            recorder.record(claim(name, 1), "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
    async with recording(api) as recorder:
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await recorder.wait_written()
    assert api.writes == ["new Provisioning x1"]
    assert capsys.readouterr().err.count("Unexpected error, event dropped") == 1


async def test_missing_permission_is_told_once(api: EventApi, capsys: pytest.CaptureFixture[str]) -> None:
    async with recording(api) as recorder:
        api.script = [(403, "namespace ns is being terminated")]
        api.always = (403, "Forbidden")
        for name in "abcd":
            recorder.record(claim(name, 1), "Normal", "Provisioning", "for claim")
            await recorder.wait_written()
    told = [line for line in capsys.readouterr().err.splitlines() if "Events cannot be written" in line]
    assert len(told) == 1
    assert "grant create and patch on events" in told[0]


async def test_what_is_told_is_in_the_log_too(api: EventApi, capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.2."""
    api.always = (403, "Forbidden")
    async with recording(api) as recorder:
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        recorder.record(volume("v", 1), "Warning", "VolumeFailedDelete", "no")
        await recorder.wait_written()
    told = [line for line in capsys.readouterr().err.splitlines() if "Event occurred" in line]
    claim_line, volume_line = (line.partition('"Event occurred" ')[2] for line in told)
    assert claim_line == (
        'object="ns/c" objectUID="uid-c" kind="PersistentVolumeClaim" type="Normal" reason="Provisioning" '
        'message="for claim"'
    )
    assert volume_line == (
        'object="v" objectUID="uid-v" kind="PersistentVolume" type="Warning" reason="VolumeFailedDelete" message="no"'
    )


async def test_what_is_merged_is_in_the_log_of_a_higher_verbosity(
    api: EventApi, capsys: pytest.CaptureFixture[str]
) -> None:
    """process.md 9.2."""
    async with recording(api) as recorder:
        for text in ("one", "two", "three"):
            recorder.record(CLAIM, "Warning", "ProvisioningFailed", text, "refused")
        recorder.record(CLAIM, "Warning", "ProvisioningFailed", "another class", "api 403")
        recorder.record(CLAIM, "Warning", "ProvisioningFailed", "said elsewhere", "api 404", level=3)
        await recorder.wait_written()
    told = [line.partition("message=")[2] for line in capsys.readouterr().err.splitlines() if "Event occurred" in line]
    assert told == ['"one"', '"another class"']


async def test_waits_for_volume_writes_but_not_for_ever(api: EventApi) -> None:
    busy = True
    async with recording(api, lambda: busy) as recorder:
        begun = trio.current_time()
        for name in "abcdefgh":
            recorder.record(claim(name, 1), "Normal", "Provisioning", "for claim")
        await trio.sleep(events.PATIENCE - 0.1)
        assert api.writes == []
        await recorder.wait_written()
        assert trio.current_time() - begun == pytest.approx(events.PATIENCE, abs=2 * events.BUSY_POLL)
        assert len(api.writes) == 8
        recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
        await trio.sleep(1)
        busy = False
        await trio.sleep(0.1)
        assert len(api.writes) == 9


async def test_memory_is_bounded_and_the_oldest_goes_first(api: EventApi) -> None:
    async with recording(api) as recorder:
        for number in range(events.LINES + 10):
            recorder.record(claim(f"c{number}", 1), "Normal", "Provisioning", "for claim")
        for number in range(100):
            recorder.record(CLAIM, "Warning", "ProvisioningFailed", "no", f"class {number}")
        assert len(recorder._lines) == events.LINES
        assert len(recorder._ready) <= events.LINES
        assert max(len(line.series) for line in recorder._lines.values()) == events.SERIES
        assert ("d_host_1", "uid-c0") not in recorder._lines
        assert ("d_host_1", "uid-c11") in recorder._lines


async def test_a_stop_ends_it_in_the_middle_of_a_write(api: EventApi) -> None:
    api.slow = 10
    with trio.move_on_after(5) as scope:
        async with recording(api) as recorder:
            recorder.record(CLAIM, "Normal", "Provisioning", "for claim")
            await recorder.wait_written()
    assert scope.cancelled_caught
    assert trio.current_time() < 6
