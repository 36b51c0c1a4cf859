"""The API server's objects: read, written, listed in pages and watched, as Structs or untyped.

`asking` says what to ask, `answer` reads what comes, `sender` sends. Here each call gets an error that says what was
being done, and what changes something the question whether it may still be begun. What to write and when to try again
is decided above; what keeps a cache true is `reflector`'s. lightkube's own `watch` is not used (design.md section 1).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from math import inf
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
import trio
from lightkube.core.resource import Resource, api_info
from lightkube.types import PatchType

from csi_provisioner.kube import answer
from csi_provisioner.kube.answer import Page as Page
from csi_provisioner.kube.answer import Wanted, wanted
from csi_provisioner.kube.asking import ALL_NS, Ask, request
from csi_provisioner.kube.config import Cluster as Cluster
from csi_provisioner.kube.config import resolve as resolve
from csi_provisioner.kube.connection import Begin
from csi_provisioner.kube.errors import UNDECODABLE
from csi_provisioner.kube.errors import KubeError as KubeError
from csi_provisioner.kube.limits import TokenBucket as TokenBucket
from csi_provisioner.kube.outline import Look
from csi_provisioner.kube.sender import Sender
from csi_provisioner.kube.transport import Answer, Transport
from csi_provisioner.logs import log
from csi_provisioner.model.kubernetes import ObjectMeta, PersistentVolumeClaim, VolumeSnapshot
from csi_provisioner.traces import traces

T = TypeVar("T", bound=Resource)
R = TypeVar("R")
D = TypeVar("D")
# The kinds that published roles let us update; volumes are patched
U = TypeVar("U", PersistentVolumeClaim, VolumeSnapshot)
Strategy = Literal["strategic", "merge"]
Patch = dict[str, Any]
Edit = Callable[[dict[str, Any]], bool]
"""Changes an object in place, and says whether there is something to write."""
# What changes something is begun only under the lease (design.md 3 rule 9)
CHANGING = frozenset({"post", "put", "patch", "delete"})
# Kinds whose POST is a question
ONLY_ASKING = frozenset({"SelfSubjectAccessReview"})

# An object has at most 1.5 MiB in etcd, about twice that as JSON, and an event holds one
LONGEST_LINE = 8 << 20
# Seconds between two reads of a watch that goes on telling, at most: each read wakes a task, whatever it brings
MOST_PAUSE = 0.05
# Objects that could not be read and were told of are remembered up to this number, and then all told of again
MOST_TOLD = 10_000


class Scope(NamedTuple):
    """Which objects of a kind: those of one namespace or of all, with which labels, and with which fields."""

    namespace: str = ALL_NS
    labels: str | None = None
    fields: str | None = None


EVERYWHERE = Scope()


class WatchEvent(msgspec.Struct, Generic[T], gc=False, frozen=True):
    """Type is ADDED, MODIFIED, DELETED or BOOKMARK; of a bookmark's object only the resourceVersion means something."""

    type: str
    object: T


class Untyped(dict[str, Any]):
    """A whole object, with its metadata as a Struct's."""

    @property
    def metadata(self) -> ObjectMeta:
        meta = self["metadata"]
        return ObjectMeta(meta.get("name", ""), meta.get("namespace"), generateName=meta.get("generateName"))


class KubeClient:
    """Every call to the API server. What changes something is only sent while `may_begin` says so."""

    def __init__(self, sender: Sender, may_begin: Callable[[], bool] = lambda: True) -> None:
        self._sender = sender
        self._may_begin = may_begin
        # Causes that people were told of, for all clients of one API server
        self.troubles = sender.cluster.troubles
        # Objects on a page of a kind whose pages were too large
        self._most: dict[type[Resource], int] = {}
        self._told: set[tuple[type[Resource], str]] = set()

    def server_time(self) -> float:
        """Seconds since 1970 by the API server's clock."""
        return self._sender.server_time()

    # ---- reading

    async def get(self, kind: type[T], name: str, namespace: str | None = None) -> T:
        return await self._ask(wanted("get", kind, name, namespace), kind, answer.live)

    async def get_untyped(self, kind: type[Resource], name: str, namespace: str | None = None) -> dict[str, Any]:
        return await self._ask(wanted("get", kind, name, namespace), kind, answer.untyped)

    async def list_page(
        self,
        kind: type[T],
        scope: Scope = EVERYWHERE,
        *,
        limit: int = 500,
        continue_token: str | None = None,
        look: Look[T] | None = None,
    ) -> Page[T]:
        """One page. Objects that cannot be decoded are said once, and left out of the items. With `look` those that
        nobody wants are not decoded."""
        limit = min(limit, self._most.get(kind, limit))
        parameters = {
            "limit": limit,
            "continue": continue_token,
            "labelSelector": scope.labels,
            "fieldSelector": scope.fields,
        }
        decode = partial(answer.page, token=continue_token, look=look)
        try:
            page = await self._ask(wanted("list", kind, "", scope.namespace), kind, decode, params=parameters)
        except KubeError as error:
            if error.reason == "TooLarge":  # anybody can make large objects: they must not hide the others
                self._most[kind] = max(1, limit // 2)
            raise
        self._tell_unreadable(kind, page.unreadable)
        return page

    async def discover(self, path: str, type_: type[D] = dict[str, Any]) -> D:  # type: ignore[assignment]
        """The answer to a plain GET, such as of `/apis/storage.k8s.io/v1`."""
        with naming(Wanted("get", path, "")):
            answer.check_segments(*path.split("/")[1:])
            return answer.decode(await self._sender.send(Ask("GET", path[1:])), type_)

    async def kinds(self, path: str) -> dict[str, str]:
        """Which kinds are served below such a path, with their plurals; subresources are none."""
        found = await self.discover(path, answer.Discovery)
        return {served.kind: served.name for served in found.resources if "/" not in served.name}

    async def read(self, path: str, kind: str, plural: str, name: str, namespace: str) -> ObjectMeta:
        """The metadata of an object of any kind that is served below the path."""
        with naming(asked := Wanted("get", kind, plural, name, namespace)):
            answer.check_segments(plural, name, namespace)
            found = await self.discover(f"{path}/namespaces/{namespace}/{plural}/{name}", answer.Described)
            asked.check(found.kind, found.metadata)
            return found.metadata

    @asynccontextmanager
    async def watch(
        self,
        kind: type[T],
        scope: Scope = EVERYWHERE,
        *,
        resource_version: str,
        timeout_seconds: int,
        pause: float = 0.0,
    ) -> AsyncIterator[AsyncIterator[tuple[WatchEvent[T], bytes]]]:
        """Each event, also as its bytes, until the server ends the watch (after `timeout_seconds`) or the context is
        left; a KubeError when it breaks. Silence is not noticed. `pause` is the seconds after a read, in which more may
        come, so that many events cost one read; without a quiet time the next one is longer, up to MOST_PAUSE. The
        first after a quiet time waits for nothing."""
        asked = wanted("watch", kind, "", scope.namespace)
        parameters = {
            "resourceVersion": resource_version,
            "labelSelector": scope.labels,
            "fieldSelector": scope.fields,
            "timeoutSeconds": timeout_seconds,
            "allowWatchBookmarks": "true",
            "watch": "true",
        }
        with naming(asked):
            asked.check_names()
            chunks = await self._sender.open_stream(request("watch", kind, "", asked.namespace, params=parameters))
        try:
            async with aclosing(_events(chunks, kind, asked, pause)) as events:
                yield events
        finally:
            chunks.close()  # whatever has not been read ends with its connection

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
        meta: ObjectMeta = body.metadata
        asked = wanted("post", kind, meta.name, namespace or meta.namespace, meta.generateName or "")
        return await self._ask(asked, kind, answer.typed, begin, obj=body)

    async def put_untyped(self, kind: type[T], obj: dict[str, Any], *, begin: Begin = None) -> T:
        """Replaces the object, if it still has the resourceVersion it was read with; else KubeError(409). `begin` as
        in `create`."""
        meta = obj["metadata"]
        asked = wanted("put", kind, meta["name"], meta.get("namespace"))
        return await self._ask(asked, kind, answer.typed, begin, obj=Untyped(obj))

    async def update(self, obj: U, edit: Edit) -> U | None:
        """`change` of the object as it was looked at."""
        meta = obj.metadata
        return await self.change(
            type(obj), meta.name, meta.namespace, seen=meta.resourceVersion, edit=edit, shown=obj.shown
        )

    async def change(
        self, kind: type[T], name: str, namespace: str | None, *, seen: str, edit: Edit, shown: bytes | None = None
    ) -> T | None:
        """Edits the object as it was `seen` (a resourceVersion; "" for any), and only that (design.md 3 rule 5).

        None if there is nothing to write. An object that has changed meanwhile is a conflict, like one that changes
        while we write. `shown`, JSON whose `object` is that of version `seen`, saves the GET.
        """
        obj = answer.decode(shown, dict[str, Any])["object"] if shown else await self.get_untyped(kind, name, namespace)
        version = obj["metadata"].get("resourceVersion", "")
        # What was decided on one version must not be written onto another.
        if seen and version != seen:
            text = "it has changed since it was looked at"
            raise KubeError(409, "Conflict", text, doing=str(wanted("change", kind, name, namespace)))
        if not edit(obj):
            return None
        return await self.put_untyped(kind, obj)

    async def patch(
        self, kind: type[T], name: str, patch: Patch, namespace: str | None = None, *, strategy: Strategy = "strategic"
    ) -> T:
        headers = {"Content-Type": PatchType[strategy.upper()].value}
        return await self._ask(wanted("patch", kind, name, namespace), kind, answer.typed, obj=patch, headers=headers)

    async def delete(self, kind: type[Resource], name: str, namespace: str | None = None) -> None:
        await self._ask(wanted("delete", kind, name, namespace), kind, answer.deleted)

    def close(self) -> None:
        self._sender.transport.close()

    # ---- the way of each

    def _tell_unreadable(self, kind: type[Resource], unreadable: dict[str, str]) -> None:
        news = [key for key in unreadable if (kind, key) not in self._told]
        if not news:
            return
        if len(self._told) > MOST_TOLD:
            self._told.clear()
        self._told.update((kind, key) for key in news)
        log.warning(
            "Some objects cannot be read, what was known of them before stays",
            kind=kind.__name__,
            objects=", ".join(key or "(without a name)" for key in news[:10]),
            count=len(news),
            err=unreadable[news[0]],
        )

    async def _ask(
        self, asked: Wanted, kind: type[T], read: Callable[[bytes, type[T], Wanted], R], begin: Begin = None, **how: Any
    ) -> R:
        try:
            asked.check_names()  # before a URL is made of them
            ask = request(asked.verb, kind, asked.name, asked.namespace, **how)
            if asked.verb in CHANGING and asked.kind not in ONLY_ASKING:
                begin = begin or self._check
            with traces.span(asked.what, asked.name, remote=True):
                return read(await self._sender.send(ask, begin), kind, asked)
        except KubeError as error:  # a `with naming` would cost as much as all that is in here
            describe(error, asked)
            raise

    def _check(self) -> None:
        if not self._may_begin():
            raise KubeError(0, "LeaseOver", "not sent: the lease has run out, another process may lead")


def connect(
    cluster: Cluster, user_agent: str, limit: TokenBucket | None = None, may_begin: Callable[[], bool] = lambda: True
) -> KubeClient:
    """A client with connections of its own; its credentials are those of all clients of `cluster`."""
    level = 2 if user_agent.endswith(")") else 0  # one for a purpose of its own says nothing new about the server
    log.v(level, "API server", host=cluster.server.authority, source=cluster.source, userAgent=user_agent)
    return KubeClient(Sender(Transport(cluster.route), cluster, user_agent, limit), may_begin)


@contextmanager
def naming(asked: Wanted) -> Iterator[None]:
    try:
        yield
    except KubeError as error:
        describe(error, asked)
        raise


def describe(error: KubeError, asked: Wanted) -> None:
    """Adds what was being done, and whether the very object that was asked for is missing."""
    error.doing = str(asked)
    error.not_found = bool(asked.name) and error.missing == (asked.plural, asked.name)


async def _events(
    chunks: Answer, kind: type[T], asked: Wanted, pause: float
) -> AsyncGenerator[tuple[WatchEvent[T], bytes], None]:
    decode = msgspec.json.Decoder(WatchEvent[kind]).decode  # type: ignore[valid-type]
    rest, nap, awake = bytearray(), pause, -inf
    with naming(asked):
        async for chunk in chunks:
            nap = pause if trio.current_time() > awake + MOST_PAUSE else min(nap + pause, max(pause, MOST_PAUSE))
            *lines, last = chunk.split(b"\n")
            # An event may come in many chunks: their bytes are joined once, when its end has come.
            if lines:
                lines[0] = bytes(rest) + lines[0]
                rest.clear()
            rest += last
            if len(rest) > LONGEST_LINE:
                raise KubeError(0, "TooLarge", f"an event is larger than {LONGEST_LINE >> 20} MiB")
            for line in filter(None, lines):
                try:
                    event: WatchEvent[Any] = decode(line)
                except UNDECODABLE as error:
                    raise answer.unexpected(line, error) from error
                # Where the kind takes any object, an error's Status fits it too.
                if event.type == "ERROR":
                    raise answer.unexpected(line, None)
                if event.type != "BOOKMARK":
                    asked.check(event.object.kind, event.object.metadata)
                yield event, line
            if pause and lines:  # what has begun to come is waited for
                await trio.sleep(nap)
                awake = trio.current_time()
        if rest:
            raise KubeError(0, "Unavailable", "the watch ended within an event")
