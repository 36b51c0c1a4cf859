"""The HTTP face of the API: a request in, the verb of `objects` done, an answer or a Status out.

Done here: bodies and media types, query parameters, lists in pages, faults met on the way, the journal. Paths are taken
apart in `requests`, watches run in `watching`, discovery is data of `discovery`.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import datetime
from email.utils import format_datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from sandbox.api import discovery, errors, patches, selectors, tables
from sandbox.api.errors import ApiError, Object
from sandbox.api.faults import Fault, Faults
from sandbox.api.objects import Objects
from sandbox.api.requests import Call, Journal, Target, target
from sandbox.api.storage import Version
from sandbox.api.watching import Selection, Watch

_log = logging.getLogger(__name__)
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_TRUE = ("1", "true", "True")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Answer(NamedTuple):
    code: int
    body: bytes
    retry_after: int | None = None


class Api:
    """The ASGI application. `cut` closes the connection from a client's address, as a broken network would."""

    def __init__(
        self, objects: Objects, faults: Faults, calls: Journal, token: str, cut: Callable[[Any], None]
    ) -> None:
        self._objects = objects
        self._faults = faults
        self._calls = calls
        self._token = token
        self._cut = cut

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        request, send = Request(scope, receive), self._dated(send)
        try:
            if self._token and request.headers.get("authorization") != f"Bearer {self._token}":
                raise errors.unauthorized()
            body = await request.body()
            # Discovery is neither counted nor spoiled by faults: every client begins with it.
            found = discovery.page(request.url.path, self._objects.kinds)
            if found is not None:
                await _send(Answer(200, found), scope, receive, send)
                return
            # Reviews are no objects: they are answered and never stored.
            if request.url.path.endswith("/selfsubjectaccessreviews"):
                await _send(self._review(_read(request, body)), scope, receive, send)
                return
            where = target(request.url.path, self._objects.kinds)
            verb = where.verb(request.method, watch=request.query_params.get("watch") in _TRUE)
        except ApiError as problem:
            await _send(_refusal(problem), scope, receive, send)
            return
        agent = request.headers.get("user-agent", "")
        call = Call(trio.current_time(), verb, where.kind.name, where.namespace, where.name, where.subresource, agent)
        self._calls.add(call)
        await self._serve(call, where, request, body, send)

    def _dated(self, send: Send) -> Send:
        """With the date of each answer, by the clock that also stamps the objects."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = format_datetime(datetime.fromisoformat(self._objects.now()), usegmt=True).encode()
                message = {**message, "headers": [*message["headers"], (b"date", date)]}
            await send(message)

        return dated

    def _review(self, review: Object) -> Answer:
        wanted = review.get("spec", {}).get("resourceAttributes", {})
        self._faults.on_review(f"{wanted.get('verb')} {wanted.get('resource')}")
        review["status"] = {"allowed": (wanted.get("verb"), wanted.get("resource")) not in self._faults.denied}
        return Answer(201, msgspec.json.encode(review))

    async def _serve(self, call: Call, where: Target, request: Request, body: bytes, send: Send) -> None:
        scope, receive = request.scope, request.receive
        # A fault may delay, answer in the request's place, or cut; what it does not say happens as usual.
        fault = self._faults.meet(call)
        if fault is not None and fault.delay:
            await trio.sleep(fault.delay)
        if fault is not None and fault.cut == "before":
            self._cut(scope["client"])
            return
        try:
            if fault is not None and fault.page is not None:
                answer = Answer(fault.code or 200, fault.page.encode())
            elif fault is not None and fault.code:
                answer = _refusal(fault.error(where.kind.plural, where.kind.group, where.name))
            elif call.verb == "watch":
                watch = self._watch(call, where, request)
                call.code = 200
                await watch(scope, receive, send)
                return
            else:
                answer = self._act(call.verb, where, request, body)
        except ApiError as problem:
            answer = _refusal(problem)
        except Exception:
            # A mistake of the sandbox is an answer too; otherwise a test would hang instead of failing.
            _log.exception("the sandbox API failed at %s %s", call.verb, request.url.path)
            answer = _refusal(ApiError(500, "InternalError", "the sandbox API failed; its log has the details"))
        if fault is not None and fault.cut:
            # The request was acted on: the client cannot know whether, which is what such a fault is for.
            await self._break_off(fault, answer, scope, send)
            return
        call.code = answer.code
        await _send(answer, scope, receive, send)

    async def _break_off(self, fault: Fault, answer: Answer, scope: Message, send: Send) -> None:
        if fault.cut == "answer":
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
            await send({"type": "http.response.start", "status": answer.code, "headers": headers})
            # The length was promised, so that the client sees a broken answer and not a short one.
            half = answer.body[: len(answer.body) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
        self._cut(scope["client"])

    def _act(self, verb: str, where: Target, request: Request, body: bytes) -> Answer:
        """Do what is asked. No await in here: a write happens wholly or not at all."""
        objects, kind, query = self._objects, where.kind, request.query_params
        status = where.subresource == "status"
        dry_run = query.get("dryRun") == "All"
        if verb == "get":
            return self._found(objects.get(kind, where.key), where, request)
        if verb == "list":
            return self._list(where, request)
        if verb == "create":
            return _object(201, objects.create(kind, _read(request, body), where.namespace, dry_run=dry_run), where)
        if verb == "update":
            put = objects.replace(kind, where.key, _read(request, body), status=status, dry_run=dry_run)
            return _object(200, put, where)
        if verb == "patch":
            change = _change(where, request, body)
            return _object(200, objects.patch(kind, where.key, change, status=status, dry_run=dry_run), where)
        # A deletion may bring its options as a body or as parameters.
        options = _read(request, body) if body else {}
        preconditions = options.get("preconditions") or {}
        dry_run = dry_run or bool(options.get("dryRun"))
        if verb == "delete":
            version, gone = objects.delete(
                kind, where.name, where.namespace, preconditions=preconditions, dry_run=dry_run
            )
            if gone and not kind.returns_deleted:
                return Answer(200, _deleted(where, version))
            return _object(200, version, where)
        return self._delete_all(where, request)

    def _found(self, version: Version, where: Target, request: Request) -> Answer:
        if tables.wanted(request.headers.get("accept", "")):
            metadata = {"resourceVersion": version.obj["metadata"]["resourceVersion"]}
            return Answer(200, tables.table(where.kind, [version.obj], metadata, self._objects.now()))
        return _object(200, version, where)

    def _list(self, where: Target, request: Request) -> Answer:
        kind, query = where.kind, request.query_params
        wanted = query.get("resourceVersion") or "0"
        if not wanted.isdigit():
            raise errors.bad_request(f"invalid resource version: {wanted!r}")
        # A version of the future comes from another server's life; the answer says to wait for it.
        self._objects.storage.check_seen(int(wanted))
        exact = query.get("resourceVersionMatch") == "Exact"
        chosen = _chosen(where, request)
        page = self._objects.page(
            kind,
            where.namespace,
            limit=_number(query, "limit"),
            continue_token=query.get("continue", ""),
            at=int(wanted) if exact else None,
            chosen=chosen,
        )
        metadata: Object = {"resourceVersion": str(page.number)}
        if page.continue_token:
            metadata["continue"] = page.continue_token
            # With a selector the server does not know how many are left, and says nothing.
            if chosen is None:
                metadata["remainingItemCount"] = page.remaining
        if tables.wanted(request.headers.get("accept", "")):
            return Answer(200, tables.table(kind, [v.obj for v in page.items], metadata, self._objects.now()))
        items = b",".join([version.item(kind, where.version) for version in page.items])
        head = msgspec.json.encode(
            {"kind": f"{kind.name}List", "apiVersion": kind.api_version(where.version), "metadata": metadata}
        )
        return Answer(200, b'%s,"items":[%s]}' % (head[:-1], items))

    def _delete_all(self, where: Target, request: Request) -> Answer:
        page = self._objects.page(where.kind, where.namespace, chosen=_chosen(where, request))
        for version in page.items:
            self._objects.delete(where.kind, version.key[1], version.key[0])
        return Answer(200, _deleted(where, None))

    def _watch(self, call: Call, where: Target, request: Request) -> Watch:
        query = request.query_params
        if query.get("sendInitialEvents") in _TRUE:
            cause = errors.Cause(
                "sendInitialEvents",
                "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
                "FieldValueForbidden",
            )
            raise errors.invalid("ListOptions", "meta.k8s.io", "", [cause])
        wanted = query.get("resourceVersion") or "0"
        if not wanted.isdigit():
            raise ApiError(500, "", f"resourceVersion: Invalid value: {wanted!r}")
        return Watch(
            call,
            Selection(where.kind, where.version, where.namespace, _chosen(where, request)),
            self._objects.storage,
            self._faults,
            since=int(wanted) or None,
            timeout=_number(query, "timeoutSeconds") or None,
            bookmarks=query.get("allowWatchBookmarks") in _TRUE,
            cut=partial(self._cut, request.scope["client"]),
        )


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not text.isdigit():
        raise errors.bad_request(f"{name}: {text!r} is not a number")
    return int(text)


def _chosen(where: Target, request: Request) -> selectors.Predicate | None:
    query = request.query_params
    return selectors.both(
        selectors.labels(query.get("labelSelector", "")),
        selectors.fields(query.get("fieldSelector", ""), where.kind.selectable),
    )


def _read(request: Request, body: bytes) -> Object:
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if media not in ("application/json", "*/*", ""):  # a real API server also reads YAML and protobuf
        raise errors.unsupported_media_type(media, ["application/json"])
    try:
        read = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise errors.bad_request(f"the object provided is unrecognized: {problem}") from None
    if not isinstance(read, dict):
        raise errors.bad_request("the object provided is unrecognized (must be an object)")
    return read


def _change(where: Target, request: Request, body: bytes) -> Callable[[Object], Object]:
    """The patch as a function on (a copy of) the object."""
    media = request.headers.get("content-type", "").partition(";")[0].strip()
    if media not in (_JSON_PATCH, _MERGE_PATCH) and (media != _STRATEGIC_PATCH or where.kind.custom):
        kinds = [_JSON_PATCH, _MERGE_PATCH] + ([] if where.kind.custom else [_STRATEGIC_PATCH])
        raise errors.unsupported_media_type(media, kinds)
    try:
        patch = msgspec.json.decode(body)
    except msgspec.DecodeError as problem:
        raise errors.bad_request(f"error decoding patch: {problem}") from None
    if media == _JSON_PATCH:
        return lambda obj: patches.json_patch(obj, patch)
    if not isinstance(patch, dict):
        raise errors.bad_request("the patch must be an object")
    if media == _MERGE_PATCH:
        return lambda obj: patches.merge(obj, patch)
    return lambda obj: patches.strategic(obj, patch)


def _object(code: int, version: Version, where: Target) -> Answer:
    return Answer(code, version.body(where.kind, where.version))


def _deleted(where: Target, version: Version | None) -> bytes:
    details: Object = {"kind": where.kind.plural}
    if where.kind.group:
        details["group"] = where.kind.group
    if version is not None:
        details |= {"name": version.key[1], "uid": version.obj["metadata"]["uid"]}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return msgspec.json.encode(status)


def _refusal(problem: ApiError) -> Answer:
    return Answer(problem.code, msgspec.json.encode(problem.status()), problem.retry_after)


async def _send(answer: Answer, scope: Message, receive: Receive, send: Send) -> None:
    headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
    response = Response(answer.body, answer.code, headers, media_type="application/json")
    await response(scope, receive, send)
