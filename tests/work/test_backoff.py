"""provision.md 2.2: delay(n) = min(start * 2^n, maximum), per key, overflow-safe."""

import pytest

from csi_provisioner.work.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "delay"),
    [(0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (10, 300), (10_000, 300)],
    ids=lambda value: str(value),
)
def test_the_delay_doubles_up_to_the_maximum(failures: int, delay: float) -> None:
    """provision.md 2.2."""
    assert Backoff(1.0, 300.0).delay(failures) == delay


@pytest.mark.parametrize(("start", "maximum"), [(-1.0, 300.0), (1.0, -2.0), (-1.0, -2.0), (0.0, 0.0)])
def test_an_interval_below_zero_means_at_once(start: float, maximum: float) -> None:
    """As process.md 1.2 lets it be given; what is told of the next try is no time of the past (provision.md 2.2)."""
    assert [Backoff(start, maximum).delay(failures) for failures in (0, 5, 10_000)] == [0, 0, 0]


def test_keys_count_apart_and_forget_starts_over() -> None:
    """provision.md 2.2."""
    backoff = Backoff(1.0, 300.0)
    assert [backoff.next("a"), backoff.next("a"), backoff.next("b")] == [1, 2, 1]
    backoff.forget("a")
    assert backoff.next("a") == 1
    assert backoff.failures("b") == 1
    backoff.forget("never seen")


def test_losses_in_a_row_end_with_any_other_failure_and_with_a_success() -> None:
    """provision.md 2.2."""
    backoff = Backoff(1.0, 300.0)
    backoff.excuse("a")
    backoff.next("a", lost=True)
    assert (backoff.losses("a"), backoff.failures("a")) == (2, 1)
    backoff.next("a")
    assert (backoff.losses("a"), backoff.failures("a")) == (0, 2)
    backoff.excuse("a")
    backoff.forget("a")
    assert backoff.losses("a") == 0
