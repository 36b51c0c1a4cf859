"""The lines of the log, for tests that listen: a sink of loguru is dear to make, so one serves all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from loguru import logger

from csi_provisioner.logs import log
from csi_provisioner.settings import LogSettings
from tests import canary

if TYPE_CHECKING:
    from loguru import Message

_EARS: list[Callable[[Any], None]] = []


@contextmanager
def heard(ear: Callable[[Any], None]) -> Iterator[None]:
    """`ear` gets loguru's record of every line; afterwards the log is as it is without settings."""
    _listen()
    _EARS.append(ear)
    try:
        yield
    finally:
        _EARS.remove(ear)
        log.configure(LogSettings())  # whatever a test wanted


@cache
def _listen() -> None:
    log.configure(LogSettings())  # once there is the product's own sink, it leaves others alone

    def tell(message: "Message") -> None:
        for ear in _EARS if canary.is_wanted(message.record) else ():
            ear(message.record)

    logger.add(tell, format=lambda _record: "")
