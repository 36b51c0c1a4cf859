"""The real code of journal, election, recovery, deletion and a claim's way in the world of `model.py` (design.md 6)."""

import gc
import random
import sys

import pytest
import trio._core._run as scheduler
from loguru import logger

from .people import live

SEEDS, AT_ONCE = 2000, 20
"""At some 0.06 s of CPU each. `python -m tests.journal.test_histories FIRST LAST` lives others."""


def lived(seed: int) -> list[str]:
    """The end of the history, if it went wrong."""
    scheduler._r.seed(seed)
    random.seed(seed)
    history = live(seed)
    trace = [" ".join(map(str, line)) for line in history.trace[-200:]]
    return [f"seed {seed}, {sorted(history.lasting)}", *trace] if history.violations else []


@pytest.mark.histories
@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_history_loses_a_volume_or_deletes_somebodys(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        trace = lived(seed)
        assert not trace, "\n".join(trace)


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
