"""The real code of journal, election, recovery, deletion and a claim's way in the world of `model.py` (design.md 6)."""

import gc
import random
import sys

import pytest
import trio._core._run as scheduler
from loguru import logger

from .people import live

SEEDS, AT_ONCE = 600, 12
"""In the suite, at some 0.05 s of CPU each. `python -m tests.journal.test_histories FIRST LAST` lives others."""

PINNED = [
    ("an entry is in before the driver is asked", 5, "kill delete"),
    ("the end of the lease is looked at before every call", 11, "sleep delete late lost"),
    ("a final answer after an uncertain one is no certainty", 28, "refuse lost delete err"),
    ("what the driver refuses to make again is told", 8, "refuse kill delete lost"),
    ("a claim that is bound elsewhere counts as gone", 0, "elsewhere kill"),
    ("a take-over writes a word that nobody else has", 31, "twins kill delete late lost"),
]
"""Rules, and a history that goes wrong without each: found once by taking the rule out of the code."""


def lived(seed: int, faults: str | None = None) -> list[str]:
    """The end of the history, if it went wrong."""
    scheduler._r.seed(seed)
    random.seed(seed)
    history = live(seed, faults=None if faults is None else frozenset(faults.split()))
    trace = [" ".join(map(str, line)) for line in history.trace[-200:]]
    return [f"seed {seed}, {sorted(history.lasting)}", *trace] if history.violations else []


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_history_loses_a_volume_or_deletes_somebodys(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        trace = lived(seed)
        assert not trace, "\n".join(trace)


@pytest.mark.parametrize(("rule", "seed", "faults"), PINNED, ids=[rule for rule, *_ in PINNED])
def test_a_history_that_needs_a_rule_goes_well(rule: str, seed: int, faults: str) -> None:
    trace = lived(seed, faults)
    assert not trace, "\n".join([rule, *trace])


def main() -> int:
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    logger.disable("csi_provisioner")
    gc.set_threshold(10_000, 20, 20)
    first, last = map(int, sys.argv[1:])
    wrong = 0
    for seed in range(first, last):
        if trace := lived(seed):
            wrong += 1
            sys.stdout.write("\n".join([*trace, ""]))
        if (seed + 1 - first) % 1000 == 0:
            sys.stdout.write(f"{seed + 1 - first} lived\n")
            sys.stdout.flush()
    sys.stdout.write(f"{last - first} histories, {wrong} went wrong\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
