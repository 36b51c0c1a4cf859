"""Whose turn it is, without a clock: fairness between lanes and namespaces, the reserve, and what it costs."""

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.model.state import Lane
from csi_provisioner.work.lanes import Lanes, Turn

SLOW, FAST, THIRD = Lane("slow"), Lane("fast"), Lane("third")


def fill(lanes: Lanes, lane: Lane, count: int, namespace: str = "") -> None:
    for number in range(count):
        lanes.add(f"{lane.class_}/{lane.source}/{namespace}/{number}", lane, namespace, float(number))


def picked(lanes: Lanes, most: int = 1000) -> list[Turn]:
    """All the turns that can be had now."""
    turns: list[Turn] = []
    while len(turns) < most and (turn := lanes.pick()) is not None:
        turns.append(turn)
    return turns


def held(turns: list[Turn]) -> dict[str, int]:
    return {name: sum(turn.lane.class_ == name for turn in turns) for name in {turn.lane.class_ for turn in turns}}


def test_a_lone_lane_has_everything() -> None:
    lanes = Lanes(100, reserve=12, several=lambda: False)
    fill(lanes, SLOW, 300)
    assert len(picked(lanes)) == 100
    assert lanes.is_short


def test_lanes_share_the_workers_equally_and_within_one_the_oldest_goes_first() -> None:
    lanes = Lanes(6)
    fill(lanes, SLOW, 300)
    fill(lanes, FAST, 300)
    turns = picked(lanes)
    assert held(turns) == {"slow": 3, "fast": 3}
    assert [turn.due for turn in turns if turn.lane == SLOW] == [0.0, 1.0, 2.0]


def test_the_last_workers_are_kept_for_other_lanes() -> None:
    lanes = Lanes(100, reserve=12)
    fill(lanes, SLOW, 300)
    assert held(picked(lanes)) == {"slow": 88}
    assert not lanes.is_short, "its lane has no room"
    fill(lanes, FAST, 300)
    assert held(picked(lanes)) == {"fast": 6}, "of two lanes each may have half of the reserve"
    fill(lanes, THIRD, 300)
    assert held(picked(lanes)) == {"third": 4}


def test_a_quick_lane_has_all_of_the_reserve() -> None:
    quick: set[Lane] = set()
    lanes = Lanes(100, reserve=12, is_quick=quick.__contains__)
    fill(lanes, SLOW, 300)
    fill(lanes, FAST, 300)
    assert held(picked(lanes)) == {"slow": 44, "fast": 44}
    quick.add(FAST)
    lanes.rank(FAST)
    assert held(picked(lanes)) == {"fast": 12}


def test_a_full_lane_holds_up_nobody_and_goes_on_when_it_has_room() -> None:
    most = {SLOW: 2}
    lanes = Lanes(10, room=lambda lane, running: running < most.get(lane, 10))
    fill(lanes, SLOW, 5)
    turns = picked(lanes)
    assert held(turns) == {"slow": 2}
    assert lanes.next() is None
    fill(lanes, FAST, 1)
    assert held(picked(lanes)) == {"fast": 1}
    lanes.release(turns[0])
    assert held(picked(lanes)) == {"slow": 1}
    most[SLOW] = 4
    lanes.rank(SLOW)
    assert held(picked(lanes)) == {"slow": 2}


def test_eight_lanes_that_ask_for_one_worker_wait_equally_long() -> None:
    """Each comes again as soon as it was served."""
    lanes, waits = Lanes(1), dict.fromkeys(range(8), 0)
    for number in range(8):
        lanes.add(f"{number}-0", Lane(str(number)), "", 0)
    since, longest = dict.fromkeys(range(8), 0), dict.fromkeys(range(8), 0)
    for now in range(80):
        turn = lanes.pick()
        assert turn is not None
        number = int(turn.lane.class_)
        waits[number] += 1
        longest[number] = max(longest[number], now - since[number])
        lanes.release(turn)
        since[number] = now
        lanes.add(f"{number}-{now + 1}", turn.lane, "", now)
    assert set(waits.values()) == {10}
    assert set(longest.values()) == {8}


def test_who_comes_again_and_again_does_not_pass_one_that_waits() -> None:
    lanes, order = Lanes(1), []
    fill(lanes, SLOW, 4)
    for number in range(8):
        lanes.add(f"often-{number}", FAST, "", number)
        turn = lanes.pick()
        assert turn is not None
        order.append(turn.lane)
        lanes.release(turn)
    assert order == [SLOW, FAST] * 4


def test_a_small_namespace_is_served_beside_a_large_one() -> None:
    lanes = Lanes(100)
    fill(lanes, FAST, 5000, "large")
    running = picked(lanes)
    fill(lanes, FAST, 5, "small")
    begun: list[str] = []
    for turn in running[:20]:
        lanes.release(turn)
        begun += [turn.namespace for turn in picked(lanes)]
    assert begun[:10].count("small") == 5
    assert begun.count("large") == 15


def test_a_namespace_without_tasks_is_a_guest_beside_full_slots() -> None:
    lanes = Lanes(8, guests=2, each=2)
    fill(lanes, FAST, 50, "large")
    assert len(picked(lanes)) == 8
    fill(lanes, FAST, 5, "small")
    guests = picked(lanes)
    assert [(turn.namespace, turn.guest) for turn in guests] == [("small", True)] * 2
    lanes.release(guests[0])
    assert [turn.namespace for turn in picked(lanes)] == ["small"]


def test_a_guest_whose_lane_had_no_room_is_one_again_once_it_has() -> None:
    bound = 1
    lanes = Lanes(1, guests=1, each=1, room=lambda lane, running: running < bound)
    fill(lanes, FAST, 3, "large")
    assert len(picked(lanes)) == 1
    fill(lanes, FAST, 1, "small")
    assert picked(lanes) == []
    bound = 9
    lanes.rank(FAST)
    assert [(turn.namespace, turn.guest) for turn in picked(lanes)] == [("small", True)]


def test_a_guest_takes_no_slot_of_the_reserve() -> None:
    lanes = Lanes(8, reserve=4, guests=2, each=1)
    fill(lanes, SLOW, 50, "large")
    fill(lanes, SLOW, 50, "small")
    assert len(picked(lanes)) == 4
    fill(lanes, SLOW, 1, "other")
    assert [turn.guest for turn in picked(lanes)] == [True]
    fill(lanes, FAST, 1)
    assert [turn.guest for turn in picked(lanes)] == [False]


def test_without_slots_nobody_has_a_turn() -> None:
    lanes = Lanes(0)
    fill(lanes, FAST, 1)
    assert lanes.pick() is None


def test_a_key_that_is_in_another_lane_by_now_waits_there_since_its_first_day() -> None:
    lanes = Lanes(1)
    lanes.add("a", Lane(""), "ns", 1.0)
    lanes.add("a", FAST, "ns", 9.0)
    assert len(lanes) == 1
    assert lanes.pick() == Turn("a", FAST, "ns", 1.0)
    assert lanes.pick() is None


def test_what_is_to_be_first_comes_before_all_that_waits_in_the_order_in_which_it_was_asked_for() -> None:
    lanes = Lanes(9)
    lanes.add("old", FAST, "", 1.0)
    lanes.add("older", FAST, "other", 0.5)
    for key in ("first", "late"):
        lanes.add(key, FAST, "", 5.0, first=True)
    assert [turn.key for turn in picked(lanes) if turn.namespace == ""] == ["first", "late", "old"]


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "pick", "release", "discard", "bound"]), st.integers(0, 5), st.sampled_from("ab")
    ),
    max_size=60,
)


@given(steps)
def test_no_more_run_than_there_are_slots_and_each_key_comes_once(history: list[tuple[str, int, str]]) -> None:
    bounds: dict[Lane, int] = {}
    lanes = Lanes(3, reserve=1, guests=1, each=1, room=lambda lane, running: running < bounds.get(lane, 9))
    waiting: set[str] = set()
    running: list[Turn] = []
    for what, number, namespace in history:
        lane, key = Lane(str(number % 3)), f"{number}{namespace}"
        if what == "add":
            lanes.add(key, lane, namespace, number)
            waiting.add(key)
        elif what == "pick":
            turn = lanes.pick()
            if turn is None:
                continue
            assert turn.key in waiting
            waiting.remove(turn.key)
            running.append(turn)
            assert sum(each.lane == turn.lane for each in running) <= bounds.get(turn.lane, 9)
        elif what == "release" and running:
            lanes.release(running.pop())
        elif what == "discard":
            lanes.discard(key)
            waiting.discard(key)
        elif what == "bound":
            bounds[lane] = number
            lanes.rank(lane)
        assert sum(not turn.guest for turn in running) <= 3
        assert sum(turn.guest for turn in running) <= 1
        assert set(lanes.waiting()) == waiting
        counts = {lane: (waits, runs) for lane, waits, runs in lanes.counts()}
        lanes_in_use = {turn.lane for turn in running} | {Lane(str(int(key[0]) % 3)) for key in waiting}
        assert set(counts) == lanes_in_use, "a lane with nothing is forgotten"
    for turn in running:
        lanes.release(turn)
    for lane in list(bounds):
        bounds[lane] = 9
        lanes.rank(lane)
    while (turn := lanes.pick()) is not None:
        waiting.remove(turn.key)
        lanes.release(turn)
    assert waiting == set()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("full", [0, 250], ids=["with room", "half of them full"])
def test_a_turn_looks_at_few_of_five_hundred_lanes(several: bool, full: int) -> None:
    looked: list[Lane] = []

    def room(lane: Lane, running: int) -> bool:
        looked.append(lane)
        return running < 1 or int(lane.class_) >= full

    lanes = Lanes(400, reserve=50, several=lambda: several, room=room)
    for number in range(500):
        fill(lanes, Lane(str(number)), 4)
    running = picked(lanes)
    looked.clear()
    for _ in range(200):
        done = running.pop(0)
        lanes.release(done)
        lanes.add(done.key, done.lane, "", 1e6)
        running += picked(lanes)
    assert len(looked) < 10 * 200


def lines_of(lanes: Lanes, running: list[Turn]) -> int:
    """How many lines of the program 200 turns run through: a walk along lanes is one a lane."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(200):
            done = running.pop(0)
            lanes.release(done)
            lanes.add(done.key, done.lane, "", 1e6)
            running += picked(lanes)
    finally:
        sys.settrace(before)
    return count


def test_a_turn_costs_with_five_hundred_lanes_what_it_costs_with_ten() -> None:
    found = []
    for count in (10, 500):
        lanes = Lanes(400, reserve=50)
        for number in range(count):
            fill(lanes, Lane(str(number)), 2000 // count)
        found.append(lines_of(lanes, picked(lanes)))
    assert found[1] < 1.2 * found[0], found
