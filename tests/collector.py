"""An OpenTelemetry collector for tests: takes spans over OTLP/HTTP, in a thread of its own, and keeps them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import canary


@dataclass(frozen=True)
class Span:
    """Ids in hexadecimal, as logs and headers have them; `parent` is empty in the root."""

    trace: str
    id: str
    parent: str
    name: str
    about: dict[str, str]
    error: str


class Collector:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"collector": self}))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> list[Span]:
        return [
            Span(
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.name,
                {each.key: each.value.string_value for each in span.attributes},
                span.status.message,
            )
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def traces(self, queue: str) -> list[list[Span]]:
        """The tries of a queue, each with its parts, in the order in which they ended."""
        roots = [span for span in self.spans if not span.parent and span.name == queue]
        return [[span for span in self.spans if span.trace == root.trace] for root in roots]


class _Handler(BaseHTTPRequestHandler):
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        canary.look("trace", body)
        self.collector.bodies.append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Nobody reads it."""


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        thread.join()
        collector.server.server_close()
