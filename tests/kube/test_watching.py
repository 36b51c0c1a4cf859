"""The transition function, row by row: what was asked, what came of it, what is asked next (process.md 5.3)."""

import pytest

from csi_provisioner.kube.watching import (
    LONGEST_PAUSE,
    Ended,
    Failed,
    Happened,
    Listing,
    Page,
    State,
    Step,
    Watching,
    is_above,
    pause_after,
    step,
)

STUCK = Watching("7", 1, stuck=True)
ROWS: dict[str, tuple[State, Happened, Step]] = {
    # the list
    "first page of many": (Listing(), Page("7", "next"), Step(Listing("next"))),
    "page in the middle": (Listing("a", 2, True), Page("7", "b"), Step(Listing("b", 2, True))),
    "last page": (Listing("b"), Page("7"), Step(Watching("7"))),
    "only page": (Listing(), Page("7"), Step(Watching("7"))),
    "counts outlive the list": (Listing(None, 4, True), Page("7"), Step(Watching("7", 4, True))),
    "page token expired: from the start": (Listing("b"), Failed(410), Step(Listing(None, 1), True)),
    "no answer: the same page again": (Listing("b", 1, True), Failed(0), Step(Listing("b", 2, True), True)),
    "server busy: the same page, not too soon": (Listing("b"), Failed(429, 9), Step(Listing("b", 1), True, 9)),
    "server error: the same page again": (Listing("b"), Failed(503), Step(Listing("b", 1), True)),
    "forbidden: from the start": (Listing("b"), Failed(403), Step(Listing(None, 1), True)),
    "kind not served: from the start": (Listing(), Failed(404), Step(Listing(None, 1), True)),
    # the watch got on
    "closed after showing something": (STUCK, Ended("9", True, 0.1), Step(Watching("9"))),
    "closed in time": (STUCK, Ended("7", False, 300), Step(Watching("7"))),
    "cut after showing something": (STUCK, Ended("9", True, 0.1, 0), Step(Watching("9", 1), True)),
    "error after showing something": (STUCK, Ended("9", True, 0.1, 500), Step(Watching("9", 1), True)),
    "refused service after showing something": (
        STUCK,
        Ended("9", True, 0.1, 429, retry_after=9),
        Step(Watching("9", 1), True, 9),
    ),
    "version too old after it got on: list at once": (STUCK, Ended("9", True, 60, 410), Step(Listing())),
    "went back behind a bookmark": (STUCK, Ended("6", True, 9), Step(Watching("6", 1), True)),
    # nobody has looked at the question: the version stays good, and nothing is known of watches
    "not opened": (Watching("7", 3), Ended("7", code=0), Step(Watching("7", 4), True)),
    "not opened again and again": (Watching("7", 9, True), Ended("7", code=0), Step(Watching("7", 10, True), True)),
    "server busy": (Watching("7"), Ended("7", code=429, retry_after=9), Step(Watching("7", 1), True, 9)),
    "service unavailable": (STUCK, Ended("7", code=503, retry_after=9), Step(Watching("7", 2, True), True, 9)),
    "busy, told in the watch": (STUCK, Ended("7", False, 9, 429, False, 9), Step(Watching("7", 2, True), True, 9)),
    # it did not get on
    "closed at once": (Watching("7", 2), Ended("7", False, 0.1), Step(Watching("7", 3, True), True)),
    "closed at once again: list": (STUCK, Ended("7", False, 0.1), Step(Listing(None, 2, True), True)),
    "cut while nothing happened": (Watching("7"), Ended("7", False, 60, 0), Step(STUCK, True)),
    "cut again, or silent: list": (STUCK, Ended("7", False, 60, 0), Step(Listing(None, 2, True), True)),
    "nothing but old events": (STUCK, Ended("6", False, 0.1), Step(Listing(None, 2, True), True)),
    "forbidden, keeps what it has": (Watching("7"), Ended("7", code=403), Step(STUCK, True)),
    "forbidden again: list": (STUCK, Ended("7", code=403), Step(Listing(None, 2, True), True)),
    "error in the watch": (Watching("7"), Ended("7", False, 0.1, 500), Step(STUCK, True)),
    "error in the watch again: list": (STUCK, Ended("7", False, 0.1, 500), Step(Listing(None, 2, True), True)),
    "version too old at once: no circle": (Watching("7", 1), Ended("7", code=410), Step(Listing(None, 2, True), True)),
    "server behind us: list": (Watching("7"), Ended("7", code=504, unknown=True), Step(Listing(None, 1, True), True)),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_step(row: tuple[State, Happened, Step]) -> None:
    state, happened, expected = row
    assert step(state, happened) == expected


def test_answers_that_cannot_be_are_defects() -> None:
    with pytest.raises(AssertionError):
        step(Listing(), Ended("7"))


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
        answer = step(state, Ended("7", code=410))
        assert answer.pause
        state = answer.state
        failures.append(state.failures)
    assert failures == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("shown", "asked", "above"),
    [("9", "7", True), ("10", "9", True), ("7", "7", False), ("6", "7", False), ("x", "w", True), ("x", "x", False)],
)
def test_progress_is_a_version_above_the_one_asked_for(shown: str, asked: str, above: bool) -> None:
    assert is_above(shown, asked) is above
