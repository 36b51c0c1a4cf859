import random
from collections.abc import Iterator

import pytest
import trio._core._run as scheduler
from loguru import logger


@pytest.fixture(autouse=True)
def the_same_again() -> Iterator[None]:
    """Trio's order of tasks is drawn too; and what the processes log is not wanted."""
    state, allowed = random.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    logger.disable("csi_provisioner")
    yield
    logger.enable("csi_provisioner")
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = allowed
    random.setstate(state)
