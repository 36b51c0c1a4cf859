"""What the journal's log writes next, and what counts as durable: design.md 6. Pure: times are numbers."""

import math
import random
from typing import Any

import pytest

from csi_provisioner.planning import entries
from csi_provisioner.provision.journal import MOVED_AT_ONCE, SETTLED, Log, Write
from csi_provisioner.provision.journal_leases import ENTRIES

DRIVER = "d"


def text(size: int = 40, name: str = "x") -> bytes:
    return b'"' + random.Random(name).randbytes(size // 2).hex().encode() + b'"'


def lease(packed: str = "{}") -> dict[str, Any]:
    return {"metadata": {"name": "l", "annotations": {ENTRIES: packed}}}


def taken(*numbers: int) -> Log:
    """A log after a take-over that found empty objects."""
    log = Log(DRIVER)
    for number in numbers or (0,):
        log.read(number, lease(), 0.0)
    return log


def begun(log: Log, now: float = 0.0, *, at_once: bool = False) -> Write:
    write = log.choose(now, at_once=at_once)
    assert isinstance(write, Write)
    return write


def done(log: Log, now: float = 0.0, *, at_once: bool = False) -> Write:
    write = begun(log, now, at_once=at_once)
    log.answered(write, lease(write.packed), now)
    return write


def test_all_who_come_before_a_write_are_in_it() -> None:
    log = taken()
    for name in ("a", "b", "c"):
        log.enter(name, text(), 0.0)
        assert not log.is_durable(name)
    assert set(done(log).texts) == {"a", "b", "c"}
    assert all(log.is_durable(name) for name in "abc")
    assert log.is_idle


def test_who_comes_during_a_write_is_in_the_next_one() -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    write = begun(log)
    log.enter("b", text(), 0.0)
    log.answered(write, lease(write.packed), 0.0)
    assert log.is_durable("a")
    assert not log.is_durable("b")
    assert set(done(log).texts) == {"a", "b"}


def test_what_leaves_shares_the_write_of_what_enters() -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    done(log)
    log.leave("a")
    log.enter("b", text(), 1.0)
    assert set(done(log, 1.0).texts) == {"b"}
    assert log.text("a") is None


def test_without_company_what_leaves_is_written_after_five_seconds() -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    done(log)
    log.leave("a")
    assert log.choose(4.9) is None
    assert log.next_due(4.9) == 5.0
    assert done(log, 5.0).texts == {}


def test_at_a_stop_what_leaves_waits_for_nothing() -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    done(log)
    log.leave("a")
    assert done(log, 0.0, at_once=True).texts == {}
    assert log.choose(0.0, at_once=True) is None


def test_an_entry_that_is_being_taken_out_is_not_durable_and_is_entered_again() -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    done(log)
    log.leave("a")
    write = begun(log, 5.0)
    assert not log.is_durable("a")
    log.enter("a", text(), 5.0)
    assert not log.is_durable("a")
    log.answered(write, lease(write.packed), 5.0)
    assert not log.is_durable("a")
    assert set(done(log, 5.0).texts) == {"a"}
    assert log.is_durable("a")


def test_what_was_to_leave_and_is_entered_before_the_write_stays() -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    done(log)
    log.leave("a")
    log.enter("a", text(), 1.0)
    assert set(done(log, 1.0).texts) == {"a"}
    assert log.is_durable("a")


@pytest.mark.parametrize("under_way", [False, True], ids=["before its write", "during its write"])
def test_who_is_gone_while_it_waits_leaves_nothing_behind(under_way: bool) -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    write = begun(log) if under_way else None
    log.withdraw("a")
    if write is not None:
        log.answered(write, lease(write.packed), 0.0)
        assert not log.is_durable("a")
        assert done(log, 5.0).texts == {}
    assert log.is_idle


def test_an_entry_of_before_stays_when_who_renews_it_is_gone() -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    done(log)
    log.enter("a", text(50), 1.0)
    log.withdraw("a")
    assert log.is_durable("a")
    assert log.is_idle


def test_a_renewed_entry_is_durable_once_its_new_text_is_written() -> None:
    log = taken()
    log.enter("a", text(), 0.0)
    done(log)
    log.enter("a", text(50), 1.0)
    assert not log.is_durable("a")
    assert done(log, 1.0).texts["a"] == text(50)
    assert log.is_durable("a")


def test_new_entries_go_to_the_lowest_object_with_room() -> None:
    log = taken(0, 1)
    big = entries.MOST_STORED // 2
    for name in ("a", "b", "c", "d"):
        log.enter(name, text(big, name), 0.0)
        done(log)
    assert [set(log.objects[number].texts) for number in (0, 1)] == [{"a", "b"}, {"c", "d"}]
    assert all(log.is_durable(name) for name in "abcd")


def test_many_large_ones_are_written_as_far_as_there_is_room() -> None:
    log = taken()
    for number in range(30):
        log.enter(f"v{number}", text(12_000, str(number)), 0.0)
    written: set[str] = set()
    while not log.is_idle:
        write = done(log)
        assert len(write.packed) <= entries.MOST_STORED
        written |= set(write.texts)
    assert written == {f"v{number}" for number in range(30)}


def test_what_fits_nowhere_is_named_and_forgotten() -> None:
    log = taken()
    log.enter("huge", text(4 * entries.MOST_STORED), 0.0)
    log.enter("a", text(), 0.0)
    assert log.choose(0.0) == "huge"
    assert not log.is_entering("huge")
    assert set(done(log).texts) == {"a"}


def test_settled_entries_move_out_of_the_first_object() -> None:
    """In there first, then out here: at every moment one of the two is durable."""
    log = taken(0, 1)
    for number in range(MOVED_AT_ONCE + 10):
        log.enter(f"v{number:02}", text(name=str(number)), 0.0)
    done(log)
    assert log.choose(SETTLED - 1) is None
    moved = begun(log, SETTLED)
    assert (moved.number, len(moved.texts)) == (1, MOVED_AT_ONCE)
    assert all(log.is_durable(name) for name in moved.texts)
    log.answered(moved, lease(moved.packed), SETTLED)
    assert all(log.is_durable(name) for name in moved.texts)
    cleared = done(log, SETTLED + 5)
    assert (cleared.number, len(cleared.texts)) == (0, 10)
    assert all(log.is_durable(f"v{number:02}") for number in range(MOVED_AT_ONCE + 10))


def test_a_moved_entry_leaves_both_objects() -> None:
    log = taken(0, 1)
    log.enter("a", text(), 0.0)
    done(log)
    done(log, SETTLED)
    log.leave("a")
    writes = [done(log, SETTLED + 5 * n) for n in (1, 2)]
    assert {write.number: dict(write.texts) for write in writes} == {0: {}, 1: {}}
    assert log.is_idle


def test_an_entry_in_two_objects_after_a_cut_move_is_one() -> None:
    log = Log(DRIVER)
    packed = entries.pack({"a": text()})
    log.read(0, lease(packed), 0.0)
    log.read(1, lease(packed), 0.0)
    assert done(log, 5.0).texts == {}
    assert log.is_durable("a")
    log.leave("a")
    done(log, 10.0)
    assert log.is_idle
    assert not any(held.texts for held in log.objects.values())


def test_what_is_not_understood_stays_and_nothing_is_added_to_it() -> None:
    log = Log(DRIVER)
    foreign = entries.pack({"theirs": b'{"v":99}'})
    assert log.read(0, lease(foreign), 0.0) == {}
    log.enter("a", text(), 0.0)
    write = done(log)
    assert (write.number, set(write.texts)) == (1, {"a"})
    assert log.objects[0].texts == {"theirs": b'{"v":99}'}


def test_a_text_that_cannot_be_read_is_left_as_it_is() -> None:
    log = Log(DRIVER)
    log.read(0, lease("scribble"), 0.0)
    log.enter("a", text(), 0.0)
    assert done(log).number == 1
    assert log.objects[0].sealed


def test_entries_beside_one_that_is_not_understood_stay_where_they_are() -> None:
    log = Log(DRIVER)
    log.read(0, lease(entries.pack({"theirs": b'{"v":99}'})), 0.0)
    log.read(1, lease(), 0.0)
    assert log.next_due(SETTLED) == math.inf
    assert log.choose(SETTLED) is None


@pytest.mark.parametrize("seed", range(30))
def test_at_every_moment_what_counts_as_durable_is_stored_whatever_became_of_the_write_under_way(seed: int) -> None:
    """Histories at random: entries come, go, come back and move; a write may be in the store before its answer."""
    rnd = random.Random(seed)
    log = taken(0, 1)
    stored: dict[int, set[str]] = {0: set(), 1: set()}
    write, now, names = None, 0.0, [f"v{number}" for number in range(8)]
    for _ in range(150):
        now += rnd.choice((0.0, 0.5, 20.0))
        name = rnd.choice(names)
        size = rnd.choice((40, 12_000, 50_000))
        match rnd.choice(("enter", "enter", "leave", "withdraw", "begin", "begin", "land", "answer", "answer")):
            case "enter":
                log.enter(name, text(size, f"{name}{now}"), now)
            case "leave":
                log.leave(name)
            case "withdraw" if log.is_entering(name):
                log.withdraw(name)
            case "begin" if write is None:
                chosen = log.choose(now)
                write = chosen if isinstance(chosen, Write) else None
            case "land" if write is not None:
                stored[write.number] = set(write.texts)
            case "answer" if write is not None:
                stored[write.number] = set(write.texts)
                log.answered(write, lease(write.packed), now)
                write = None
        durable = {name for name in names if log.is_durable(name)}
        assert durable <= set().union(*stored.values())
        if write is not None:
            assert durable <= set(write.texts).union(*(held for n, held in stored.items() if n != write.number))
    for name in names:
        log.leave(name)
    while not log.is_idle:
        write = write or begun(log, now, at_once=True)
        stored[write.number] = set(write.texts)
        log.answered(write, lease(write.packed), now)
        write = None
    assert not any(stored.values())
