"""What a request asks for: its path taken apart, its verb named as RBAC names it, and the journal of all requests.

Nothing is looked up or changed here; `app` does what the request says.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sandbox.api.errors import method_not_allowed, no_such_path
from sandbox.api.kinds import Kind, Registry
from sandbox.api.storage import Key

_COLLECTION_VERBS = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}
_OBJECT_VERBS = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = ("status",)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a path points: a kind in one of its versions, and maybe a namespace, a name and a subresource."""

    kind: Kind
    version: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    def verb(self, method: str, *, watch: bool) -> str:
        verbs = _OBJECT_VERBS if self.name else _COLLECTION_VERBS
        # A status can be read and written, but neither made nor deleted by itself.
        if method not in verbs or (self.subresource and method in ("POST", "DELETE")):
            raise method_not_allowed()
        # RBAC knows a watch as a verb; in HTTP it is a list with a parameter.
        return "watch" if watch and verbs[method] == "list" else verbs[method]


def target(path: str, kinds: Registry) -> Target:
    """The target of a resource path; 404 for anything that is not served."""
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            raise no_such_path()
    namespace = ""
    # `/namespaces/x/status` is the status of the namespace itself, all longer paths lead into it.
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in _SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    if not 1 <= len(rest) <= 3 or "" in rest:
        raise no_such_path()
    # Padded, so that a short path leaves the rest empty.
    plural, name, subresource = (*rest, "", "")[:3]
    kind = kinds.at(group, version, plural)
    if kind is None or (subresource and not (kind.status and subresource in _SUBRESOURCES)):
        raise no_such_path()
    if (namespace and not kind.namespaced) or (name and kind.namespaced and not namespace):
        raise no_such_path()
    return Target(kind, version, namespace, name, subresource)


@dataclass(slots=True)
class Call:
    """One request as the server saw it. `code` is 0 while it runs and when its connection was cut."""

    at: float
    verb: str
    kind: str
    namespace: str
    name: str
    subresource: str
    agent: str
    code: int = 0


class Journal:
    """The requests, in the order of arrival; the oldest are dropped, which a test of 2000 claims does not reach."""

    def __init__(self, limit: int = 100_000) -> None:
        self._calls: deque[Call] = deque(maxlen=limit)

    def add(self, call: Call) -> None:
        self._calls.append(call)

    def clear(self) -> None:
        self._calls.clear()

    def __iter__(self) -> Iterator[Call]:
        # A copy: requests may come while a test looks through them.
        return iter(list(self._calls))

    def __len__(self) -> int:
        return len(self._calls)

    def of(self, verb: str = "*", kind: str = "*", *, name: str = "*", code: int | None = None) -> list[Call]:
        """The requests that match; patterns are shell-like."""
        return [
            call
            for call in self._calls
            if fnmatchcase(call.verb, verb)
            and fnmatchcase(call.kind, kind)
            and fnmatchcase(call.name, name)
            and code in (None, call.code)
        ]
