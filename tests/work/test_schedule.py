"""The schedule against a plain model: a dictionary of the earliest time per key."""

import math

from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.work.ranking import SPARE
from csi_provisioner.work.schedule import Schedule

operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcde"), st.integers(0, 20)),
        st.tuples(st.just("pop"), st.just(""), st.integers(0, 20)),
    )
)


@given(operations)
def test_the_earliest_time_of_a_key_wins_and_each_key_comes_once(steps: list[tuple[str, str, int]]) -> None:
    schedule, model = Schedule(), dict[str, float]()
    for operation, key, time in steps:
        if operation == "add":
            earlier = key not in model or time < model[key]
            assert schedule.add(key, time) is earlier
            model[key] = min(time, model.get(key, time))
        else:
            popped = schedule.pop(time)
            if popped is None:
                assert not model or min(model.values()) > time
            else:
                assert popped[1] == model.pop(popped[0]) == min([popped[1], *model.values()])
        assert schedule.count_due(math.inf) == len(model)
        assert schedule.count_due(time) == sum(due <= time for due in model.values())
        assert all(schedule.is_due(key, math.inf) for key in model)
        assert schedule.next_due() == (min(model.values()) if model else None)


def test_equal_times_come_in_the_order_they_were_asked_for() -> None:
    schedule = Schedule()
    for key in ("x", "a", "m"):
        schedule.add(key, 1.0)
    assert [schedule.pop(1.0), schedule.pop(1.0), schedule.pop(1.0)] == [("x", 1.0), ("a", 1.0), ("m", 1.0)]


def test_postponed_keys_are_due_when_they_are_told_also_those_that_were_due_before() -> None:
    schedule = Schedule()
    schedule.add("overdue", 1.0)
    schedule.add("later", 500.0)
    times = iter([11.0, 12.0])
    schedule.postpone(lambda key: next(times))
    assert schedule.pop(10.0) is None
    assert [schedule.pop(12.0), schedule.pop(12.0)] == [("overdue", 11.0), ("later", 12.0)]


def test_a_key_that_is_held_is_not_due_before_however_it_is_woken() -> None:
    schedule = Schedule()
    schedule.add("a", 1.0)
    schedule.hold("a", 9.0)
    for due in (0.0, 5.0, 8.0):
        schedule.add("a", due)
    schedule.postpone(lambda key: 2.0)
    assert schedule.pop(8.9) is None
    assert schedule.pop(9.0) == ("a", 9.0)
    schedule.add("a", 3.0)
    assert schedule.pop(3.0) == ("a", 3.0), "once it was taken it is as any other"


def test_a_key_that_is_moved_again_and_again_leaves_no_trail() -> None:
    schedule = Schedule()
    schedule.add("first", 0.5)  # nothing is stale at the top of the heap
    for round_ in range(50):
        for number in range(100):
            schedule.add(f"key-{number}", 1000.0 - round_)
    assert len(schedule._ranking._heap) <= 2 * 101 + SPARE
    assert [schedule.pop(1000.0) for _ in range(3)] == [("first", 0.5), ("key-0", 951.0), ("key-1", 951.0)]
    assert schedule.count_due(math.inf) == 98
