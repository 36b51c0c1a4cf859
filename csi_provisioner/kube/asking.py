"""What to ask the API server for: the request of each operation on a kind, from lightkube's description of the kind.

lightkube's own client asks for the very same, which a test holds. It is not imported, because it loads an HTTP client
and all kinds that there are: a tenth of a start, and of the memory of a process that has nothing to do.
"""

from functools import cache
from typing import Any

import msgspec
from lightkube.core.resource import NamespacedResourceG, Resource, api_info

ALL_NS = "*"
"""In the place of a namespace: all of them."""
METHODS = {"list": "GET", "watch": "GET"}
OF_ONE = frozenset({"get", "put", "patch", "delete"})


class Ask(msgspec.Struct):
    method: str
    url: str
    """Below the server's own."""
    params: dict[str, Any] = {}
    data: Any = None
    headers: dict[str, str] | None = None


@cache
def form(verb: str, kind: type[Resource], everywhere: bool = False) -> tuple[str, str]:
    """Method and path; `{namespace}` and `{name}` are to be put in."""
    info, within = api_info(kind), issubclass(kind, NamespacedResourceG) and not everywhere
    path = ["apis" if info.resource.group else "api", info.resource.api_version]
    path += [*(["namespaces", "{namespace}"] if within else []), info.plural, *(["{name}"] if verb in OF_ONE else [])]
    return METHODS.get(verb, verb.upper()), "/".join(path)


def request(
    verb: str,
    kind: type[Resource],
    name: str,
    namespace: str | None,
    *,
    obj: Any = None,
    params: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Ask:
    method, path = form(verb, kind, namespace == ALL_NS)  # type: ignore[arg-type]  # a class can be hashed
    if isinstance(obj, Resource):
        obj.apiVersion, obj.kind = api_info(kind).resource.api_version, api_info(kind).resource.kind
    given = {name: value for name, value in (params or {}).items() if value is not None}
    return Ask(method, path.format(namespace=namespace, name=name), given, obj, headers)
