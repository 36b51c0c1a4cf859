"""What the audit of the image says of a recorded advisory, of a package that is not found, and when nobody answers.

The package index is a proxy here, so that it is asked as it is by default: it answers for any host.
"""

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

AUDIT = Path(__file__).parent.parent / "image" / "audit.py"
AUTHORITY = trustme.CA()
# As the index says it of h11 0.14.0, without what nobody reads here
ADVISORY = {
    "aliases": ["CVE-2025-43859"],
    "details": "A leniency in h11's parsing of line terminators in chunked-coding message bodies can lead to smuggling",
    "fixed_in": ["0.16.0"],
    "id": "GHSA-vqfr-h8mv-ghfj",
    "link": "",
    "source": "osv",
    "summary": None,
    "withdrawn": None,
}
KNOWN = {"h11/0.14.0": [ADVISORY], "trio/0.35.0": []}


class Index(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        AUTHORITY.issue_cert(self.path.split(":")[0]).configure_cert(context)
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def do_GET(self) -> None:
        asked = "/".join(self.path.split("/")[-3:-1])
        body = json.dumps({"vulnerabilities": KNOWN.get(asked, [])}).encode()
        self.send_response(200 if asked in KNOWN else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def index() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        server.daemon_threads = False  # so that the end waits for them
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def audit(folder: Path, proxy: str, *packages: str) -> tuple[int, str]:
    (folder / "requirements.txt").write_text("".join(f"{package}\n" for package in packages))
    AUTHORITY.cert_pem.write_to_path(str(folder / "authority.pem"))
    command = [sys.executable, str(AUDIT), f"--requirement={folder / 'requirements.txt'}", "--no-deps"]
    environment = {**os.environ, "HTTPS_PROXY": proxy, "REQUESTS_CA_BUNDLE": str(folder / "authority.pem")}
    done = subprocess.run(
        [*command, f"--cache-dir={folder}"], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    return done.returncode, done.stdout + done.stderr


def test_a_known_vulnerability_is_named_with_the_version_that_mends_it(tmp_path: Path) -> None:
    with index() as proxy:
        code, said = audit(tmp_path, proxy, "h11==0.14.0", "trio==0.35.0")
    assert code == 1, said
    assert "h11 0.14.0: CVE-2025-43859, mended in 0.16.0: A leniency in h11's parsing" in said
    assert "2 packages, 1 known vulnerabilities" in said


def test_a_package_that_is_not_found_has_not_passed(tmp_path: Path) -> None:
    with index() as proxy:
        code, said = audit(tmp_path, proxy, "trio==0.35.0", "trio-asyncio==0.16.0")
    assert code == 75, said
    assert "could not be audited: trio-asyncio" in said
