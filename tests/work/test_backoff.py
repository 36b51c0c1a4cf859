"""provision.md 2.2: delay(n) = min(start * 2^n, maximum), per key, overflow-safe."""

import pytest

from csi_provisioner.work.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "delay"),
    [(0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (10, 300), (10_000, 300)],
    ids=lambda value: str(value),
)
def test_2_2_delay_doubles_up_to_the_maximum(failures: int, delay: float) -> None:
    assert Backoff(1.0, 300.0).delay(failures) == delay


def test_2_2_keys_count_apart_and_forget_starts_over() -> None:
    backoff = Backoff(1.0, 300.0)
    assert [backoff.next("a"), backoff.next("a"), backoff.next("b")] == [1, 2, 1]
    backoff.forget("a")
    assert backoff.next("a") == 1
    assert backoff.failures("b") == 1
    backoff.forget("never seen")
