"""The transitions, row by row: what was asked, what came of it, what is asked next (process.md 5.3)."""

import pytest

from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.watching import (
    LONGEST_PAUSE,
    UNANSWERED,
    Ended,
    Listing,
    State,
    Step,
    Watching,
    after_no_page,
    after_page,
    after_watch,
    is_above,
    pause_after,
)

PAGES: dict[str, tuple[Listing, str | None, State]] = {
    "first page of many": (Listing(), "next", Listing("next")),
    "page in the middle": (Listing("a", 2, True), "b", Listing("b", 2, True)),
    "last page": (Listing("b"), None, Watching("7")),
    "only page": (Listing(), None, Watching("7")),
    "counts outlive the list": (Listing(None, 4, True), None, Watching("7", 4, True)),
}
NO_PAGES: dict[str, tuple[Listing, KubeError, Step]] = {
    "page token expired: from the start": (Listing("b"), KubeError(410), (Listing(None, 1), 0)),
    "no answer: the same page again": (Listing("b", 1, True), KubeError(0), (Listing("b", 2, True), 0)),
    "server busy: the same page, not too soon": (Listing("b"), KubeError(429, retry_after=9), (Listing("b", 1), 9)),
    "server error: the same page again": (Listing("b"), KubeError(503), (Listing("b", 1), 0)),
    "no answer for long: asked often, for it may be back": (
        Listing("b", 9),
        KubeError(0),
        (Listing("b", UNANSWERED), 0),
    ),
    "forbidden: from the start": (Listing("b"), KubeError(403), (Listing(None, 1), 0)),
    "kind not served: from the start": (Listing(), KubeError(404), (Listing(None, 1), 0)),
}
STUCK = Watching("7", 1, stuck=True)
BUSY, UNAVAILABLE = KubeError(429, retry_after=9), KubeError(503, retry_after=9)
BEHIND = KubeError(504, causes=("ResourceVersionTooLarge",))
WATCHES: dict[str, tuple[Watching, Ended, Step]] = {
    # it got on
    "closed after showing something": (STUCK, Ended("9", True, 0.1), (Watching("9"), None)),
    "closed in time": (STUCK, Ended("7", False, 69), (Watching("7"), None)),
    "closed in time, with no bookmark: perhaps of another history": (STUCK, Ended("7", False, 300), (Listing(), None)),
    "cut after showing something": (STUCK, Ended("9", True, 0.1, KubeError(0)), (Watching("9", 1), 0)),
    "error after showing something": (STUCK, Ended("9", True, 0.1, KubeError(500)), (Watching("9", 1), 0)),
    "refused service after showing something": (STUCK, Ended("9", True, 0.1, BUSY), (Watching("9", 1), 9)),
    "version too old after it got on: list at once": (STUCK, Ended("9", True, 60, KubeError(410)), (Listing(), None)),
    "went back: of another history": (STUCK, Ended("6", True, 9), (Listing(), None)),
    "versions without an order": (STUCK, Ended("b", True, 9), (Watching("b"), None)),
    # nobody has looked at the question: the version stays good, and nothing is known of watches
    "not opened": (Watching("7", 3), Ended("7", error=KubeError(0)), (Watching("7", 4), 0)),
    "not opened again and again": (
        Watching("7", 9, True),
        Ended("7", error=KubeError(0)),
        (Watching("7", UNANSWERED, True), 0),
    ),
    "server busy": (Watching("7"), Ended("7", error=BUSY), (Watching("7", 1), 9)),
    "service unavailable": (STUCK, Ended("7", error=UNAVAILABLE), (Watching("7", 2, True), 9)),
    "busy, told in the watch": (STUCK, Ended("7", False, 9, BUSY), (Watching("7", 2, True), 9)),
    # it did not get on
    "closed at once": (Watching("7", 2), Ended("7", False, 0.1), (Watching("7", 3, True), 0)),
    "closed at once again: list": (STUCK, Ended("7", False, 0.1), (Listing(None, 2, True), 0)),
    "cut while nothing happened": (Watching("7"), Ended("7", False, 60, KubeError(0)), (STUCK, 0)),
    "cut again, or silent: list": (STUCK, Ended("7", False, 60, KubeError(0)), (Listing(None, 2, True), 0)),
    "nothing but old events": (STUCK, Ended("6", False, 0.1), (Listing(None, 2, True), 0)),
    "forbidden, keeps what it has": (Watching("7"), Ended("7", error=KubeError(403)), (STUCK, 0)),
    "forbidden again: list": (STUCK, Ended("7", error=KubeError(403)), (Listing(None, 2, True), 0)),
    "error in the watch": (Watching("7"), Ended("7", False, 0.1, KubeError(500)), (STUCK, 0)),
    "error in the watch again: list": (STUCK, Ended("7", False, 0.1, KubeError(500)), (Listing(None, 2, True), 0)),
    "version too old at once: no circle": (
        Watching("7", 1),
        Ended("7", error=KubeError(410)),
        (Listing(None, 2, True), None),
    ),
    "version too old after an outage: list at once": (
        Watching("7", UNANSWERED),
        Ended("7", error=KubeError(410)),
        (Listing(None, UNANSWERED + 1, True), None),
    ),
    "version too old again: lists have their gap": (
        STUCK,
        Ended("7", error=KubeError(410)),
        (Listing(None, 2, True), None),
    ),
    "server behind us: list": (Watching("7"), Ended("7", error=BEHIND), (Listing(None, 1, True), None)),
}


@pytest.mark.parametrize("row", PAGES.values(), ids=PAGES.keys())
def test_after_a_page_comes_the_next_one_or_the_watch(row: tuple[Listing, str | None, State]) -> None:
    state, token, expected = row
    assert after_page(state, "7", token) == expected


@pytest.mark.parametrize("row", NO_PAGES.values(), ids=NO_PAGES.keys())
def test_a_page_that_is_not_given_is_asked_for_again_or_the_list_begins_anew(
    row: tuple[Listing, KubeError, Step],
) -> None:
    state, error, expected = row
    assert after_no_page(state, error) == expected


@pytest.mark.parametrize("row", WATCHES.values(), ids=WATCHES.keys())
def test_a_watch_that_got_on_is_resumed_and_one_that_did_not_gives_way_to_a_list(
    row: tuple[Watching, Ended, Step],
) -> None:
    state, ended, expected = row
    assert after_watch(state, ended) == expected


def test_pause_doubles_from_its_first_to_its_longest() -> None:
    middle = [pause_after(failures, 0.5) for failures in range(1, 9)]
    assert middle == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]


@pytest.mark.parametrize("failures", [1, 5, 100, 10_000])
def test_pause_is_drawn_around_its_middle(failures: int) -> None:
    low, middle, high = (pause_after(failures, draw) for draw in (0.0, 0.5, 0.999))
    assert low == pytest.approx(middle * 0.8)
    assert middle < high < middle * 1.2
    assert high < LONGEST_PAUSE * 1.2


@pytest.mark.parametrize(
    ("shown", "asked", "above"),
    [("9", "7", True), ("10", "9", True), ("7", "7", False), ("6", "7", False), ("x", "w", True), ("x", "x", False)],
)
def test_progress_is_a_version_above_the_one_asked_for(shown: str, asked: str, above: bool) -> None:
    assert is_above(shown, asked) is above
