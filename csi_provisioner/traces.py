"""What each try waited for, for those who trace (docs/how-to/tracing.md): a span a try, below it what it
asked of others.

Off, unless `begin` was called: then nothing of OpenTelemetry is imported, and a try has no more than the id that is in
its log lines. What spans say is what the log may say: names and errors, never requests.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from random import getrandbits
from typing import TYPE_CHECKING

import trio

from csi_provisioner.logs import log

if TYPE_CHECKING:
    from csi_provisioner.otlp import Spans

_NOTHING = nullcontext()


class Traces:
    """Made once below, as `traces`. Spans find their try by the context of the task, as log lines do."""

    def __init__(self) -> None:
        self._spans: Spans | None = None

    async def begin(self) -> None:
        """From here on tries are traced, if the extra is installed."""
        try:
            # In a thread: probes are answered while it is loaded.
            self._spans = await trio.to_thread.run_sync(_spans)
        except Exception as error:  # also of a variable that the library does not take: all else works
            advice = (
                "install csi-provisioner[tracing]" if isinstance(error, ImportError) else "look at the variables OTEL_*"
            )
            log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, and no traces are sent", err=str(error), advice=advice)

    async def end(self, limit: float) -> None:
        """Sends what is left, for at most `limit` seconds."""
        spans, self._spans = self._spans, None
        if spans is not None:
            with trio.move_on_after(limit), suppress(RuntimeError):  # for want of threads
                # The thread may wait for a collector that never answers; it does not keep the process from ending.
                await trio.to_thread.run_sync(spans.close, abandon_on_cancel=True)

    def tried(self, queue: str, about: Mapping[str, object]) -> AbstractContextManager[str]:
        """Around a try; gives its id, which is that of its trace."""
        return nullcontext(f"{getrandbits(64):016x}") if self._spans is None else self._spans.root(queue, about)

    def span(self, name: str, about: str = "", *, remote: bool = False) -> AbstractContextManager[object]:
        """Around a part of a try; elsewhere it is nothing. `remote`: somebody else is asked."""
        return _NOTHING if self._spans is None else self._spans.child(name, about, remote)

    def failed(self, reason: str) -> None:
        """The try, or its part, came to nothing."""
        if self._spans is not None:
            self._spans.fail(reason)

    def parent(self) -> str | None:
        """What a call says of the span that it belongs to, as W3C's `traceparent`."""
        return None if self._spans is None else self._spans.parent()


def _spans() -> "Spans":
    from csi_provisioner.otlp import Spans

    return Spans()


traces = Traces()
