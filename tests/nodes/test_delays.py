"""Node-deployment.md 6: how long an instance waits before it tries to take a claim."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.nodes import claiming
from csi_provisioner.settings import NodeSettings

LAST = 1 - 2**-53  # the largest number random() gives


def settings(base: float, most: float) -> NodeSettings:
    return NodeSettings(enabled=True, base_delay=base, max_delay=most)


# base, maximum, attempt, open lower end, closed upper end
ROWS = [
    *(
        (20, 60, k, low, high)
        for k, low, high in [(0, 0, 20), (1, 20, 40), (2, 40, 60), (3, 40, 60), (4, 40, 60), (9, 40, 60)]
    ),
    *((1, 10, k, low, high) for k, low, high in [(0, 0, 1), (1, 1, 2), (2, 3, 4), (3, 7, 8), (4, 9, 10), (9, 9, 10)]),
]


@pytest.mark.parametrize(
    ("base", "most", "attempt", "low", "high"),
    ROWS,
    ids=[f"node-deployment-6-base-{row[0]}-k-{row[2]}" for row in ROWS],
)
def test_interval(base: float, most: float, attempt: int, low: float, high: float) -> None:
    longest = claiming.delay(attempt, settings(base, most), 0.0)
    shortest = claiming.delay(attempt, settings(base, most), LAST)
    assert longest == high
    assert low < shortest < low + 0.001
    assert low < claiming.delay(attempt, settings(base, most), 0.5) < high


@pytest.mark.parametrize("attempt", [0, 1, 4, 100])
def test_a_base_above_the_maximum_is_cut(attempt: int) -> None:
    """node-deployment.md 6."""
    given = settings(60, 20)
    assert claiming.delay(attempt, given, 0.0) == 20
    assert claiming.delay(attempt, given, 0.25) == 5
    assert claiming.delay(attempt, given, 0.34) == claiming.delay(attempt, given, LAST) == 0


@pytest.mark.parametrize("attempt", [0, 1, 4, 100])
def test_a_base_of_zero_does_not_wait(attempt: int) -> None:
    """node-deployment.md 6."""
    assert claiming.delay(attempt, settings(0, 60), LAST) == 0


@given(st.integers(0, 10**6), st.floats(0, 10**6), st.floats(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_never_negative_nor_above_the_maximum(attempt: int, base: float, most: float, u: float) -> None:
    """node-deployment.md 6."""
    assert 0 <= claiming.delay(attempt, settings(base, most), u) <= most + 1e-9
