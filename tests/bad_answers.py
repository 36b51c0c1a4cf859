"""What a broken server, a proxy or a load balancer may answer, whatever it was asked. None of it is an answer."""

import json
from typing import NamedTuple

from tests.kube.wire import reply

BRACKETS = b'{"metadata":{"name":"c","resourceVersion":"9"},"items":[],"resources":[],"new":%b%b}\n'
ITEM = {"metadata": {"name": "c", "namespace": "n", "resourceVersion": "9", "uid": "u"}}
LIST = {"metadata": {"resourceVersion": "9"}}
PAGE = b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>"
STATUS = {
    "kind": "Status",
    "status": "Failure",
    "reason": "Odd",
    "message": "odd",
    "code": "five hundred",
    "new": {"field": [1]},
}


class Bad(NamedTuple):
    raw: bytes
    code: int = 0
    """What the error of the request says; 0: no answer that makes sense."""
    cut: bool = False
    """The connection ends after it."""


def said(obj: object, status: int = 200) -> bytes:
    return reply(status, json.dumps(obj).encode() + b"\n")  # as the real one ends them; in a watch, events


def text(status: int, body: bytes, **headers: str) -> bytes:
    return reply(status, body, **{"Content_Type": "text/html", **headers})


BAD = {
    "nothing": Bad(said({})),
    "null": Bad(said(None)),
    "array": Bad(said([])),
    "empty-body": Bad(reply(200, b"")),
    "items-null": Bad(said(LIST | {"items": None})),
    "items-missing": Bad(said(LIST)),
    "items-nothing": Bad(said({"items": [], "metadata": None})),
    "without-version": Bad(said({"items": [], "metadata": {}})),
    "other-name": Bad(said({"metadata": ITEM["metadata"] | {"name": "other"}})),
    "other-namespace": Bad(said({"metadata": ITEM["metadata"] | {"namespace": "other"}})),
    "other-kind": Bad(said({"kind": "ConfigMap", **ITEM})),
    "list-of-other-kind": Bad(said({"kind": "ConfigMapList", "items": [], **LIST})),
    "success-of-another": Bad(said({"kind": "Status", "status": "Success", "details": {"name": "other"}})),
    "failure-as-success": Bad(said(STATUS | {"code": 500})),
    "404-text": Bad(reply(404, b"404 page not found\n", Content_Type="text/plain"), 404),
    "404-page": Bad(text(404, PAGE), 404),
    "404-empty-details": Bad(said({"kind": "Status", "reason": "NotFound", "code": 404, "details": {}}, 404), 404),
    "502-page": Bad(text(502, b"<html>bad gateway</html>"), 502),
    "507": Bad(text(507, b""), 507),
    "odd-status": Bad(said(STATUS, 500), 500),
    "301": Bad(text(301, b"", Location="https://elsewhere.test/"), 301),
    "429-without-a-time": Bad(text(429, b""), 429),
    "not-utf-8": Bad(reply(200, b'{"metadata":{"name":"\xff","resourceVersion":"\xff"},"items":[]}\n')),
    "brackets": Bad(reply(200, BRACKETS % (b"[" * 200_000, b"]" * 200_000))),
    "cut-body": Bad(reply(200, b'{"metadata":{', Content_Length="5000"), cut=True),
    "cut-head": Bad(b"HTTP/1.1 200 OK\r\nContent-Ty", cut=True),
    "no-http": Bad(b"SSH-2.0-OpenSSH_9.6\r\n", cut=True),
    "bad-topology": Bad(said(ITEM | {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": None}}}})),
    "resources-null": Bad(said({"kind": "APIResourceList", "resources": None})),
    "resources-odd": Bad(said({"kind": "APIResourceList", "resources": [{"name": "things"}, None]})),
}
