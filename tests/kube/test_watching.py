"""The transition function, row by row: what was asked, what came of it, what is asked next (process.md 5.3)."""

import pytest

from csi_provisioner.kube.watching import (
    LONGEST_PAUSE,
    Broken,
    Closed,
    Failed,
    Happened,
    Listing,
    Page,
    Silent,
    State,
    Step,
    Watching,
    pause_after,
    step,
)

ROWS: dict[str, tuple[State, Happened, Step]] = {
    # the list
    "first page of many": (Listing(), Page("7", "next"), Step(Listing("next"))),
    "page in the middle": (Listing("a"), Page("7", "b"), Step(Listing("b"))),
    "last page": (Listing("b"), Page("7"), Step(Watching("7"))),
    "only page": (Listing(), Page("7"), Step(Watching("7"))),
    "whole list after trouble watches at once": (Listing(None, 4), Page("7"), Step(Watching("7", 4))),
    "page token expired: from the start": (Listing("b"), Failed(410), Step(Listing(None, 1), True)),
    "no answer: the same page again": (Listing("b", 1), Failed(0), Step(Listing("b", 2), True)),
    "server busy: the same page again": (Listing("b"), Failed(429), Step(Listing("b", 1), True)),
    "server error: the same page again": (Listing("b"), Failed(503), Step(Listing("b", 1), True)),
    "forbidden: from the start": (Listing("b"), Failed(403), Step(Listing(None, 1), True)),
    "kind not served: from the start": (Listing(), Failed(404), Step(Listing(None, 1), True)),
    # the watch ends
    "closed after showing something": (Watching("7", 2), Closed("9", 0.1), Step(Watching("9"))),
    "closed in time": (Watching("7", 2), Closed("7", 300), Step(Watching("7"))),
    "closed at once": (Watching("7", 2), Closed("7", 0.1), Step(Watching("7", 3), True)),
    "silent the first time": (Watching("7"), Silent("7"), Step(Watching("7", silent=1))),
    "silent again": (Watching("7", silent=1), Silent("7"), Step(Watching("7", silent=2))),
    "silent once too often: list": (Watching("7", silent=2), Silent("7"), Step(Listing())),
    "silent after showing something": (Watching("7", 3, silent=2), Silent("9"), Step(Watching("9", silent=1))),
    # the watch breaks
    "cut after showing something": (Watching("7", 3), Broken(0, "9"), Step(Watching("9", 1), True)),
    "cut after a long time": (Watching("7", 3), Broken(0, "7", 60), Step(Watching("7", 1), True)),
    "cannot be opened": (Watching("7", 3), Broken(0, "7"), Step(Watching("7", 4), True)),
    "forbidden, keeps what it has": (Watching("7"), Broken(403, "7"), Step(Watching("7", 1), True)),
    "server error": (Watching("7", silent=1), Broken(500, "7"), Step(Watching("7", 1, silent=1), True)),
    "version too old after it worked: list at once": (Watching("7", 3), Broken(410, "9", 60), Step(Listing())),
    "version too old at once: no circle": (Watching("7", 1), Broken(410, "7"), Step(Listing(None, 2), True)),
    "server behind us: list": (Watching("7"), Broken(504, "7", unknown=True), Step(Listing(None, 1), True)),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_step(row: tuple[State, Happened, Step]) -> None:
    state, happened, expected = row
    assert step(state, happened) == expected


def test_answers_that_cannot_be_are_defects() -> None:
    with pytest.raises(AssertionError):
        step(Listing(), Silent("7"))


def test_pause_doubles_from_its_first_to_its_longest() -> None:
    middle = [pause_after(failures, 0.5) for failures in range(1, 9)]
    assert middle == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]


@pytest.mark.parametrize("failures", [1, 5, 100, 10_000])
def test_pause_is_drawn_around_its_middle(failures: int) -> None:
    low, middle, high = (pause_after(failures, draw) for draw in (0.0, 0.5, 0.999))
    assert low == pytest.approx(middle * 0.8)
    assert middle < high < middle * 1.2
    assert high < LONGEST_PAUSE * 1.2


def test_a_list_that_is_always_expired_is_asked_for_less_and_less() -> None:
    state: State = Listing()
    failures = []
    for _ in range(4):
        state = step(state, Page("7")).state
        answer = step(state, Broken(410, "7"))
        assert answer.pause
        state = answer.state
        failures.append(state.failures)
    assert failures == [1, 2, 3, 4]
