"""The HTTP face of the API: a request in, the verb of `objects` done, an answer or a Status out.

Done here: bodies and media types, query parameters, lists in pages, faults met on the way, the journal. Paths are taken
apart in `requests`, watches run in `watching`, discovery is data of `discovery`.
"""

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import msgspec
import trio

from sandbox.api import discovery, errors, patches, selectors, tables
from sandbox.api.errors import ApiError, Object
from sandbox.api.faults import Faults
from sandbox.api.http import Connection, Request
from sandbox.api.objects import Objects
from sandbox.api.requests import Call, Journal, Target, target
from sandbox.api.storage import Version
from sandbox.api.watching import Selection, Watch

_log = logging.getLogger(__name__)
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_TRUE = ("1", "true", "True")
Found = TypeVar("Found")


class Answer(NamedTuple):
    code: int
    body: bytes
    retry_after: int | None = None


class Api:
    """Answers the requests of all connections."""

    def __init__(self, objects: Objects, faults: Faults, calls: Journal, token: str) -> None:
        self._objects = objects
        self._faults = faults
        self._calls = calls
        self._token = token

    async def __call__(self, request: Request, client: Connection) -> None:
        try:
            if self._token and request.headers.get("authorization") != f"Bearer {self._token}":
                raise errors.unauthorized()
            # Discovery is neither counted nor spoiled by faults: every client begins with it.
            found = discovery.page(request.path, self._objects.kinds)
            if found is not None:
                await _send(Answer(200, found), client)
                return
            # Reviews are no objects: they are answered and never stored.
            if request.path.endswith("/selfsubjectaccessreviews"):
                agent = request.headers.get("user-agent", "")
                await _send(self._contained(request, lambda: self._review(_read(request), agent)), client)
                return
            where = target(request.path, self._objects.kinds)
            verb = where.verb(request.method, watch=request.query.get("watch") in _TRUE)
        except ApiError as problem:
            await _send(_refusal(problem), client)
            return
        agent = request.headers.get("user-agent", "")
        call = Call(trio.current_time(), verb, where.kind.name, where.namespace, where.name, where.subresource, agent)
        self._calls.add(call)
        await self._serve(call, where, request, client)

    def _review(self, review: Object, agent: str) -> Answer:
        wanted = review.get("spec", {}).get("resourceAttributes", {})
        self._faults.on_review(f"{wanted.get('verb')} {wanted.get('resource')}", agent)
        review["status"] = {"allowed": (wanted.get("verb"), wanted.get("resource")) not in self._faults.denied}
        return Answer(201, msgspec.json.encode(review))

    async def _serve(self, call: Call, where: Target, request: Request, client: Connection) -> None:
        # A fault may delay, answer in the request's place, or cut; what it does not say happens as usual.
        fault = self._faults.meet(call)
        if fault is not None and fault.delay:
            await trio.sleep(fault.delay)
        if fault is not None and fault.cut == "before":
            client.cut()
            return
        answer: Answer | Watch
        if fault is not None and fault.page is not None:
            answer = Answer(fault.code or 200, fault.page.encode())
        elif fault is not None and fault.code:
            answer = _refusal(fault.error(where.kind.plural, where.kind.group, where.name))
        elif call.verb == "watch":
            answer = self._contained(request, lambda: self._watch(call, where, request, client.cut))
        else:
            answer = self._contained(request, lambda: self._act(call.verb, where, request))
        if isinstance(answer, Watch):
            call.code = 200
            await answer(client)
        elif fault is not None and fault.cut == "answer":
            # The request was acted on: the client cannot know whether, which is what such a fault is for.
            await client.break_off(answer.body)
        elif fault is not None and fault.cut:
            client.cut()
        else:
            call.code = answer.code
            await _send(answer, client)

    def _contained(self, request: Request, act: Callable[[], Found]) -> Found | Answer:
        try:
            return act()
        except ApiError as problem:
            return _refusal(problem)
        except Exception:
            # A mistake of the sandbox is an answer too; otherwise a test would hang instead of failing.
            _log.exception("the sandbox API failed at %s %s", request.method, request.path)
            return _refusal(ApiError(500, "InternalError", "the sandbox API failed; its log has the details"))

    def _act(self, verb: str, where: Target, request: Request) -> Answer:
        """Do what is asked. No await in here: a write happens wholly or not at all."""
        objects, kind, query = self._objects, where.kind, request.query
        status = where.subresource == "status"
        dry_run = query.get("dryRun") == "All"
        if verb == "get":
            return self._found(objects.get(kind, where.key), where, request)
        if verb == "list":
            return self._list(where, request)
        if verb == "create":
            return _object(201, objects.create(kind, _read(request), where.namespace, dry_run=dry_run), where)
        if verb == "update":
            put = objects.replace(kind, where.key, _read(request), status=status, dry_run=dry_run)
            return _object(200, put, where)
        if verb == "patch":
            change = _change(where, request)
            return _object(200, objects.patch(kind, where.key, change, status=status, dry_run=dry_run), where)
        # A deletion may bring its options as a body or as parameters.
        options = _read(request) if request.body else {}
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
        kind, query = where.kind, request.query
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

    def _watch(self, call: Call, where: Target, request: Request, cut: Callable[[], None]) -> Watch:
        query = request.query
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
            cut=cut,
        )


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not text.isdigit():
        raise errors.bad_request(f"{name}: {text!r} is not a number")
    return int(text)


def _chosen(where: Target, request: Request) -> selectors.Predicate | None:
    query = request.query
    return selectors.both(
        selectors.labels(query.get("labelSelector", "")),
        selectors.fields(query.get("fieldSelector", ""), where.kind.selectable),
    )


def _read(request: Request) -> Object:
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if media not in ("application/json", "*/*", ""):  # a real API server also reads YAML and protobuf
        raise errors.unsupported_media_type(media, ["application/json"])
    try:
        read = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise errors.bad_request(f"the object provided is unrecognized: {problem}") from None
    if not isinstance(read, dict):
        raise errors.bad_request("the object provided is unrecognized (must be an object)")
    return read


def _change(where: Target, request: Request) -> Callable[[Object], Object]:
    """The patch as a function on (a copy of) the object."""
    media = request.headers.get("content-type", "").partition(";")[0].strip()
    if media not in (_JSON_PATCH, _MERGE_PATCH) and (media != _STRATEGIC_PATCH or where.kind.custom):
        kinds = [_JSON_PATCH, _MERGE_PATCH] + ([] if where.kind.custom else [_STRATEGIC_PATCH])
        raise errors.unsupported_media_type(media, kinds)
    try:
        patch = msgspec.json.decode(request.body)
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


async def _send(answer: Answer, client: Connection) -> None:
    headers = {} if answer.retry_after is None else {"retry_after": str(answer.retry_after)}
    await client.answer(answer.code, answer.body, **headers)
