"""The API server's objects: read, written, listed in pages and watched, as Structs or untyped.

lightkube builds the requests and decodes the answers; `sender` puts them on the wire. Here each call gets its deadline,
its place in the client-side limit, and an error that says what was being done. What to write and when to try again is
decided above; what keeps a cache true is `reflector`'s. lightkube's own `watch` is not used (design.md section 1).
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import httpx2
import msgspec
import trio
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core import decoders
from lightkube.core.generic_client import ALL_NS, GenericAsyncClient
from lightkube.core.resource import NamespacedResourceG, Resource, api_info
from lightkube.types import PatchType

from csi_provisioner.kube.config import Cluster, resolve
from csi_provisioner.kube.errors import KubeError, from_status
from csi_provisioner.kube.kubeconfig import ConfigError
from csi_provisioner.kube.limits import TokenBucket
from csi_provisioner.kube.sender import Sender, mapped
from csi_provisioner.kube.transport import Begin
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import ObjectMeta

__all__ = [
    "Cluster",
    "ConfigError",
    "KubeClient",
    "KubeError",
    "Page",
    "TokenBucket",
    "Watch",
    "WatchEvent",
    "connect",
    "resolve",
]

T = TypeVar("T", bound=Resource)
R = TypeVar("R")
Strategy = Literal["strategic", "merge", "json"]
CHANGING = frozenset({"post", "put", "patch", "delete"})
ONLY_ASKING = frozenset({"SelfSubjectAccessReview"})
"""Kinds whose POST is a question."""

# As long as the API server itself gives a request at most half of; a write that takes longer is as good as lost
DEADLINE = 30.0


class Page(NamedTuple, Generic[T]):
    items: list[T]
    resource_version: str
    continue_token: str | None


class WatchEvent(msgspec.Struct, Generic[T], gc=False, frozen=True):
    """Type is ADDED, MODIFIED, DELETED or BOOKMARK; of a bookmark's object only the resourceVersion means something."""

    type: str
    object: T


class Watch(Generic[T]):
    """The events of one open watch; it ends when the server ends it, and raises KubeError when it breaks."""

    def __init__(self, chunks: AsyncIterator[bytes], kind: type[T], doing: Callable[[], str]) -> None:
        self._chunks = chunks
        self._decode = msgspec.json.Decoder(WatchEvent[kind]).decode  # type: ignore[valid-type]
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._doing = doing
        self.line = b""
        """The last event as it came."""

    def __aiter__(self) -> "Watch[T]":
        return self

    async def __anext__(self) -> WatchEvent[T]:
        while not self._lines:
            with naming(self._doing), mapped():
                await self._more()
        self.line = line = self._lines.popleft()
        try:
            event: WatchEvent[T] = self._decode(line)
        except msgspec.DecodeError as error:
            raise self._unexpected(line, error) from error
        if event.type == "ERROR":
            raise self._unexpected(line, None)
        return event

    async def _more(self) -> None:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            if self._rest:
                raise KubeError(0, "Unavailable", "the watch ended within an event") from None
            raise
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._lines.extend(line for line in lines if line)

    def _unexpected(self, line: bytes, trouble: Exception | None) -> KubeError:
        """An ERROR event, whose object is a Status and seldom fits the kind, or something that makes no sense."""
        error = KubeError(0, "InvalidAnswer", f"the event cannot be understood: {trouble}")
        with suppress(msgspec.DecodeError):
            event = decoders.decode_watch_event(line)
            if event.type == "ERROR":
                error = from_status(bytes(event.object))
        error.doing = self._doing()
        return error


class Untyped(dict[str, Any]):
    """A whole object, as lightkube wants to see what it sends: it compares namespaces."""

    @property
    def metadata(self) -> ObjectMeta:
        meta = self["metadata"]
        return ObjectMeta(name=meta.get("name", ""), namespace=meta.get("namespace"))


class Lightkube(GenericAsyncClient):
    """lightkube's engine (what its `AsyncClient` is a front of), sending through ours."""

    def __init__(self, sender: Sender, namespace: str) -> None:
        self.AdapterClient = lambda _config, _parameters: sender  # type: ignore[assignment, return-value]
        super().__init__(ConnectionParams(trust_env=False), KubeConfig.from_server("", namespace).get())


class KubeClient:
    """Every call to the API server. `limit` counts all requests but the opening of a watch; what changes something is
    only sent while `may_begin` says so."""

    def __init__(
        self,
        sender: Sender,
        *,
        namespace: str = "default",
        limit: TokenBucket | None = None,
        deadline: float = DEADLINE,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sender = sender
        self._lightkube = Lightkube(sender, namespace)
        self._limit = limit
        self._deadline = deadline
        self._may_begin = may_begin

    # ---- reading

    async def get(self, kind: type[T], name: str, namespace: str | None = None) -> T:
        return await self._ask("get", kind, typed(kind), name=name, namespace=namespace)

    async def get_untyped(self, kind: type[Resource], name: str, namespace: str | None = None) -> dict[str, Any]:
        return await self._ask("get", kind, untyped, name=name, namespace=namespace)

    async def list_page(
        self,
        kind: type[T],
        *,
        namespace: str | None = None,
        limit: int = 500,
        continue_token: str | None = None,
        resource_version: str | None = None,
        label_selector: str | None = None,
    ) -> Page[T]:
        """One page; without a namespace, of all of them. `resource_version` is for the first page only."""
        parameters = {
            "limit": limit,
            "continue": continue_token,
            "resourceVersion": None if continue_token else resource_version,
            "labelSelector": label_selector,
        }

        def page(body: bytes) -> Page[T]:
            token, version, items = decoders.decode_list(body, kind)
            return Page(items, version or "", token or None)

        return await self._ask("list", kind, page, namespace=scope(kind, namespace), parameters=parameters)

    async def discover(self, path: str) -> dict[str, Any]:
        """The answer to a plain GET, such as of `/apis/storage.k8s.io/v1`."""
        with naming(lambda: f"get {path}"):
            return await self._sent(self._sender.build_request("GET", path), untyped)

    @asynccontextmanager
    async def watch(
        self,
        kind: type[T],
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        timeout_seconds: int,
    ) -> AsyncIterator[Watch[T]]:
        """Open until the server ends it (after `timeout_seconds`) or the context is left; silence is not noticed."""
        namespace = scope(kind, namespace)
        parameters = {
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "timeoutSeconds": timeout_seconds,
            "allowWatchBookmarks": "true",
        }

        def doing() -> str:
            return described("watch", kind, None, namespace)

        ask = self._lightkube.prepare_request("list", kind, namespace=namespace, watch=True, params=parameters)
        request = self._lightkube.build_adapter_request(ask)
        with naming(doing):
            response = await self._timely(self._sender.open_stream, request)
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        try:
            yield Watch(aiter(stream), kind, doing)
        finally:
            await stream.aclose()

    # ---- writing

    async def create(
        self, kind: type[T], obj: T | dict[str, Any], namespace: str | None = None, *, begin: Begin = None
    ) -> T:
        """Of a Struct or of a whole object, which gets its `apiVersion` and `kind` here if it has none. `begin` is
        called just before it is sent, in place of the question whether it may be."""
        resource = api_info(kind).resource
        body: Any = obj
        if isinstance(obj, dict):
            body = Untyped({"apiVersion": resource.api_version, "kind": resource.kind, **obj})
        name = body.metadata.name
        return await self._ask("post", kind, typed(kind), name=name, namespace=namespace, body=body, begin=begin)

    async def put_untyped(self, kind: type[T], obj: dict[str, Any], *, begin: Begin = None) -> T:
        """Replaces the object, if it still has the resourceVersion it was read with; else KubeError(409). `begin` as
        in `create`."""
        meta = obj["metadata"]
        return await self._ask(
            "put", kind, typed(kind), name=meta["name"], namespace=meta.get("namespace"), body=Untyped(obj), begin=begin
        )

    async def change(
        self,
        kind: type[T],
        name: str,
        namespace: str | None,
        *,
        seen: str,
        edit: Callable[[dict[str, Any]], bool],
        shown: bytes | None = None,
    ) -> T | None:
        """Edits the object as it was `seen` (a resourceVersion; "" for any), and only that (design.md 3 rule 5).

        `edit` works in place and says whether there is something to write; None if not. An object that has changed
        meanwhile is a conflict, as one that changes while we write. `shown` is the watch's event of that version, for
        who has kept it: then the object is not asked for again.
        """
        obj = untyped(shown)["object"] if shown else await self.get_untyped(kind, name, namespace)
        version = obj["metadata"].get("resourceVersion", "")
        if seen and version != seen:
            text = "it has changed since it was looked at"
            raise KubeError(409, "Conflict", text, doing=described("change", kind, name, namespace))
        if not edit(obj):
            return None
        return await self.put_untyped(kind, obj)

    async def patch(
        self,
        kind: type[T],
        name: str,
        patch: dict[str, Any] | list[Any],
        namespace: str | None = None,
        *,
        strategy: Strategy = "strategic",
    ) -> T:
        """A list is what a JSON patch takes, a dict the other two."""
        headers = {"Content-Type": PatchType[strategy.upper()].value}
        return await self._ask("patch", kind, typed(kind), name=name, namespace=namespace, body=patch, headers=headers)

    async def delete(self, kind: type[Resource], name: str, namespace: str | None = None) -> None:
        await self._ask("delete", kind, ignored, name=name, namespace=namespace)

    async def aclose(self) -> None:
        await self._sender.aclose()

    # ---- the way of each

    async def _ask(
        self,
        verb: str,
        kind: type[Resource],
        decode: Callable[[bytes], R],
        *,
        name: str | None = None,
        namespace: str | None = None,
        body: object = None,
        parameters: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        begin: Begin = None,
    ) -> R:
        ask = self._lightkube.prepare_request(verb, kind, body, name, namespace, headers=headers, params=parameters)
        request = self._lightkube.build_adapter_request(ask)
        if verb in CHANGING and api_info(kind).resource.kind not in ONLY_ASKING:
            request.extensions["begin"] = begin or self._check
        with naming(lambda: described(verb, kind, name, namespace)):
            return await self._sent(request, decode)

    def _check(self) -> None:
        if not self._may_begin():
            raise KubeError(0, "LeaseOver", "not sent: the lease has run out, another process may lead")

    async def _sent(self, request: httpx2.Request, decode: Callable[[bytes], R]) -> R:
        if self._limit is not None:  # not part of the deadline: the server is not to blame
            await self._limit.admit(request.method, request.extensions["target"].decode())
        answer = await self._timely(self._sender.send, request)
        try:
            return decode(answer.content)
        except msgspec.DecodeError as error:
            raise KubeError(0, "InvalidAnswer", f"the answer cannot be understood: {error}") from error

    async def _timely(self, send: Callable[[httpx2.Request], Awaitable[R]], request: httpx2.Request) -> R:
        with trio.move_on_after(self._deadline):
            return await send(request)
        raise KubeError(0, "Timeout", f"no answer within {self._deadline:g} s")


async def connect(
    cluster: Cluster,
    *,
    user_agent: str,
    limit: TokenBucket | None = None,
    deadline: float = DEADLINE,
    may_begin: Callable[[], bool] = lambda: True,
) -> KubeClient:
    """A client with connections of its own; its credentials are those of all clients of `cluster`."""
    host = cluster.server.netloc.decode()  # and no more of the URL: a password may be in it
    log.info("API server", host=host, source=cluster.source, userAgent=user_agent)
    headers = [("User-Agent", user_agent), *cluster.headers]
    sender = Sender(cluster.transport(), cluster.server, cluster.credentials, headers, cluster.server_name)
    return KubeClient(sender, namespace=cluster.namespace, limit=limit, deadline=deadline, may_begin=may_begin)


@contextmanager
def naming(doing: Callable[[], str]) -> Iterator[None]:
    """Errors from within say what was being done."""
    try:
        yield
    except KubeError as error:
        error.doing = doing()
        raise


def described(verb: str, kind: type[Resource], name: str | None, namespace: str | None) -> str:
    verb = {"post": "create", "put": "update"}.get(verb, verb)
    where = f"in {namespace}" if namespace and namespace != ALL_NS else ""
    what = f"{namespace}/{name}" if name and namespace else name or where
    return f"{verb} {api_info(kind).resource.kind} {what}".rstrip()


def scope(kind: type[Resource], namespace: str | None) -> str | None:
    """lightkube wants to be told that a list of a namespaced kind is of all namespaces."""
    return ALL_NS if namespace is None and issubclass(kind, NamespacedResourceG) else namespace


def typed(kind: type[T]) -> Callable[[bytes], T]:
    return partial(msgspec.json.decode, type=kind)


def untyped(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])


def ignored(_body: bytes) -> None:
    return None
