"""How asynchronous tests and fixtures are run: by a plain `trio.run`, one for each test.

The anyio plugin's own runner uses Trio's guest mode, which waits for sockets in a thread: every wait of a test, and
each jump of a virtual clock, became two switches of threads. Here Trio has the thread for itself; between a fixture
and its test it stands still in a greenlet. Tests on virtual time get the `network` of this process.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import anyio.abc
import outcome
import trio
import trio.testing
from anyio._backends import _trio
from greenlet import getcurrent, greenlet

from tests import network

T = TypeVar("T")


class Runner(anyio.abc.TestRunner):
    def __init__(self, **options: Any) -> None:
        self._options = options
        self._running: greenlet | None = None

    def __exit__(self, *error: object) -> None:
        if self._running is not None and not self._running.dead:
            self._running.switch(None)

    def is_running(self) -> bool:
        return getcurrent() is self._running

    def _do(self, act: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """In the task that all fixtures and the test share: what a fixture opens stays open around the test."""
        if self._running is None:
            self._running = greenlet(self._run)
            self._running.switch()
        done: outcome.Outcome[T] = self._running.switch(lambda: act(*args, **kwargs))
        return done.unwrap()

    def _run(self) -> None:
        trio.run(self._obey, getcurrent().parent, **self._options)

    async def _obey(self, caller: greenlet) -> None:
        if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
            network.join()
        wanted = caller.switch()
        while wanted is not None:
            wanted = caller.switch(await outcome.acapture(wanted))

    def run_asyncgen_fixture(
        self, fixture_func: Callable[..., AsyncGenerator[T, Any]], kwargs: dict[str, Any]
    ) -> Iterable[T]:
        fixture = fixture_func(**kwargs)
        yield self._do(fixture.asend, None)
        try:
            self._do(fixture.asend, None)
        except StopAsyncIteration:
            return
        raise RuntimeError("a fixture yields once")

    def run_fixture(self, fixture_func: Callable[..., Coroutine[Any, Any, T]], kwargs: dict[str, Any]) -> T:
        return self._do(fixture_func, **kwargs)

    def run_test(self, test_func: Callable[..., Coroutine[Any, Any, Any]], kwargs: dict[str, Any]) -> None:
        self._do(test_func, **kwargs)


def install() -> None:
    _trio.TestRunner = Runner  # type: ignore[misc,assignment]
