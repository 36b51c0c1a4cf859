"""An API server of recorded bytes: `python -m bench.canned KUBECONFIG OBJECTS`. It costs next to nothing to ask.

It has so many claims and volumes of another driver, takes what is written, and tells of changed claims at the rate that
was last read from stdin, each in a TLS record of its own. Each line there is answered with the number told so far.
"""

import json
import ssl
import sys
import threading
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import trustme

from bench.measure import OTHER, foreign_volume
from bench.store_memory import claim_bytes

# A watch that says nothing for a minute or so is taken for dead.
BOOKMARK = 20.0
FIRST = 1_000_000_000
"""The lists' resourceVersion. Those of changes are as long, so that they only take its place in the bytes."""
CLAIMS, VOLUMES, REVIEWS = "persistentvolumeclaims", "persistentvolumes", "selfsubjectaccessreviews"
STORAGE = ("storageclasses", "csinodes", "volumeattachments", "volumeattributesclasses", "csistoragecapacities")
KINDS = {"storageclasses": "StorageClass", CLAIMS: "PersistentVolumeClaim", VOLUMES: "PersistentVolume"}


def claims(objects: int) -> list[bytes]:
    found = (claim_bytes(number, OTHER) for number in range(objects))
    return [
        line.replace(f'"resourceVersion": "{1000 + number}"'.encode(), f'"resourceVersion": "{FIRST}"'.encode())
        for number, line in enumerate(found)
    ]


def volumes(objects: int) -> list[bytes]:
    made = []
    for number in range(objects):
        volume = foreign_volume(number)
        volume["metadata"] |= {"uid": f"{number:036}", "resourceVersion": f"{FIRST}", "labels": {"app": "app"}}
        volume["status"] = {"phase": "Bound"}
        volume["spec"]["claimRef"] = {"namespace": "team", "name": f"data-{number}", "uid": f"{number:036}"}
        made.append(json.dumps(volume).encode())
    return made


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    objects: ClassVar[dict[str, list[bytes]]]
    written: ClassVar[dict[str, dict[str, Any]]] = {}
    rate = told = 0.0

    def log_message(self, format: str, *_: Any) -> None: ...

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked, place = dict(parse_qsl(url.query)), url.path.split("/")[3 if url.path.startswith("/api/") else 4 :]
        plural, *names = place[2:] if place[:1] == ["namespaces"] else [*place, ""][: len(place) or 1]
        if "watch" in asked:
            self._watch(plural)
        elif not plural:
            resources = [{"name": name, "kind": name, "namespaced": False, "verbs": ["list"]} for name in STORAGE]
            resources.append({"name": "volumeattributesclasses", "kind": "VolumeAttributesClass", "verbs": ["list"]})
            self._answer(200, {"kind": "APIResourceList", "apiVersion": "v1", "resources": resources})
        elif not names:
            self._page(plural, asked)
        elif url.path in self.written:
            self._answer(200, self.written[url.path])
        else:
            details = {"name": names[0], "kind": plural}
            status = {"status": "Failure", "reason": "NotFound", "code": 404, "message": "gone", "details": details}
            self._answer(404, {"kind": "Status", "apiVersion": "v1", **status})

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith(REVIEWS):
            body["status"] = {"allowed": True}
        else:
            meta = body["metadata"]
            meta |= {"name": meta.get("name") or meta["generateName"] + "1", "uid": "1", "resourceVersion": f"{FIRST}"}
            self.written[f"{self.path}/{meta['name']}"] = body
        self._answer(201, body)

    def do_PUT(self) -> None:
        body = self.written[self.path] = self._body()
        body["metadata"]["resourceVersion"] = str(int(body["metadata"].get("resourceVersion") or FIRST) + 1)
        self._answer(200, body)

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _answer(self, code: int, body: dict[str, Any] | bytes) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _page(self, plural: str, asked: dict[str, str]) -> None:
        found, begin, limit = self.objects.get(plural, []), int(asked.get("continue", 0)), int(asked.get("limit", 500))
        meta = {"resourceVersion": f"{FIRST}"} | (
            {"continue": f"{begin + limit}"} if len(found) > begin + limit else {}
        )
        version = "/".join(urlsplit(self.path).path.split("/")[2:4]) if self.path.startswith("/apis/") else "v1"
        head = {"kind": f"{KINDS.get(plural, '')}List", "apiVersion": version, "metadata": meta}
        items = b",".join(found[begin : begin + limit])
        self._answer(200, json.dumps(head).encode()[:-1] + b', "items": [' + items + b"]}")

    def _watch(self, plural: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        version = FIRST
        due = bookmark = time.monotonic()
        while True:
            if (now := time.monotonic()) >= bookmark:
                bookmark = now + BOOKMARK
                meta = {"resourceVersion": f"{version}"}
                self._event(json.dumps({"type": "BOOKMARK", "object": {"metadata": meta}}).encode())
            if plural != CLAIMS or not Handler.rate:
                time.sleep(0.05)
                due = now
                continue
            version += 1
            line = self.objects[CLAIMS][version % len(self.objects[CLAIMS])]
            line = line.replace(f'"{FIRST}"'.encode(), f'"{version}"'.encode())
            self._event(b'{"type": "MODIFIED", "object": ' + line + b"}")
            Handler.told += 1
            due += 1 / Handler.rate
            time.sleep(max(0.0, due - time.monotonic()))

    def _event(self, line: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\n\r\n" % (len(line) + 1, line))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None: ...  # whoever is measured comes and goes


def main() -> None:
    kubeconfig, objects = Path(sys.argv[1]), int(sys.argv[2])
    Handler.objects = {CLAIMS: claims(objects), VOLUMES: volumes(objects)}
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    trusted = b64encode(authority.cert_pem.bytes()).decode()
    cluster = {"server": f"https://127.0.0.1:{server.server_port}", "certificate-authority-data": trusted}
    entries = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
    }
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "c", **entries}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening", flush=True)
    for line in sys.stdin:
        Handler.rate = float(line)
        print(Handler.told, flush=True)


if __name__ == "__main__":
    main()
