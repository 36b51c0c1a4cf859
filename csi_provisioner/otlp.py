"""OpenTelemetry's library, as `traces` needs it: spans are sent over OTLP by a thread of the library's own.

Its queue is bounded (OTEL_BSP_MAX_QUEUE_SIZE); what a collector does not take is dropped. All of its settings are
environment variables that it reads itself. Imported only where traces are wanted.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import (
    SpanKind,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
)

from csi_provisioner import __version__
from csi_provisioner.logs import escaped, log, with_uids

# Of an error: its beginning tells what it is, and thousands of spans may wait in memory.
LONGEST_TEXT = 1000
# The library warns of every batch that is not taken, and of every span that is dropped, from these places.
_WARNS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class Spans:
    """`close` must be called at the end."""

    def __init__(self) -> None:
        said = Resource({"service.name": "csi-provisioner", "service.version": __version__})
        # What the environment says wins: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
        resource = said.merge(OTELResourceDetector().detect())
        # At its own exit the library would wait for a collector for as long as it likes.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        self._tracer = self._provider.get_tracer("csi-provisioner", __version__)

    def close(self) -> None:
        """Blocks until all is sent, or half a minute."""
        self._provider.shutdown()

    @contextmanager
    def root(self, queue: str, about: Mapping[str, object]) -> Iterator[str]:
        told = {name: str(value) for name, value in with_uids(about)}
        with self._tracer.start_as_current_span(
            queue, attributes=told, record_exception=False, set_status_on_exception=False
        ) as span:
            yield format_trace_id(span.get_span_context().trace_id)

    @contextmanager
    def child(self, name: str, about: str, remote: bool) -> Iterator[None]:
        # The event writer, watches and the election belong to no try.
        if not get_current_span().get_span_context().is_valid:
            yield
            return
        # Not the library's own record of an exception: it has the words of all errors that led to it, among them a
        # driver's, from which secrets were not yet taken out.
        with self._tracer.start_as_current_span(
            name,
            kind=SpanKind.CLIENT if remote else SpanKind.INTERNAL,
            attributes={"object": about} if about else None,
            record_exception=False,
            set_status_on_exception=False,
        ):
            try:
                yield
            except BaseException as error:
                self.fail(str(error) if isinstance(error, Exception) else "cancelled")
                raise

    def fail(self, reason: str) -> None:
        get_current_span().set_status(StatusCode.ERROR, escaped(reason[:LONGEST_TEXT]))

    def parent(self) -> str | None:
        context = get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"


class _Exporter(OTLPSpanExporter):
    """Says once that the collector takes nothing, and once that it does again."""

    def __init__(self) -> None:
        super().__init__()
        self._told = False
        for name in _WARNS:
            logger = logging.getLogger(name)
            logger.filters = [self._is_news]

    def _is_news(self, record: logging.LogRecord) -> bool:
        told, self._told = self._told, True
        return not told

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if self._told and result is SpanExportResult.SUCCESS:
            self._told = False
            log.info("Traces are taken again")
        return result
