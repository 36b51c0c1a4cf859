"""The client with an HTTP server that is not ours: Python's own, which reads requests in its way."""

import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

from csi_provisioner.kube.transport import Route, Transport
from tests.kube.wire import send


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: ClassVar[list[object]] = []

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])) * 1000
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(20):
            piece = body[number:] + body[:number]
            for part in (b"%X;part=%d\r\n" % (len(piece), number), piece[:17], piece[17:], b"\r\n"):
                self.wfile.write(part)
        self.wfile.write(b"0\r\nServer-Timing: total\r\n\r\n")

    def log_message(self, *said: object) -> None:
        pass


async def test_requests_and_a_kept_connection_work_with_another_server() -> None:
    _Echo.connections.clear()
    with HTTPServer(("127.0.0.1", 0), _Echo) as server, closing(Transport(Route(server.server_address))) as transport:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        for _ in range(3):
            answer = await (await send(transport, "POST", body=b"0123456789")).whole()
            assert answer == b"".join((b"0123456789" * 1000)[n:] + (b"0123456789" * 1000)[:n] for n in range(20))
        transport.close()
        server.shutdown()
        thread.join()
    assert len(_Echo.connections) == 1
