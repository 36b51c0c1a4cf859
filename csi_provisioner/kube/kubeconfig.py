"""The kubeconfig file, as far as it is understood: one context of it, with its cluster and its user.

Reading and choosing only; what the entries mean for a connection is `config`'s. Everything that is wrong with the file
is a ConfigError that names the file and the place.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec


class ConfigError(Exception):
    """The cluster cannot be found, or not entered, with what was given."""


class ClusterEntry(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None
    extensions: list[dict[str, object]] | None = None


class Variable(msgspec.Struct):
    name: str
    value: str


class ExecEntry(msgspec.Struct):
    apiVersion: str
    command: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    installHint: str = ""
    provideClusterInfo: bool = False


class UserEntry(msgspec.Struct, rename="kebab"):
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    username: str = ""
    password: str = ""
    exec: ExecEntry | None = None
    auth_provider: dict[str, object] | None = None
    as_user: str = msgspec.field(default="", name="as")
    as_uid: str = ""
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None


class ContextEntry(msgspec.Struct):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


class NamedCluster(msgspec.Struct):
    name: str
    cluster: ClusterEntry


class NamedUser(msgspec.Struct):
    name: str
    user: UserEntry = msgspec.field(default_factory=UserEntry)


class NamedContext(msgspec.Struct):
    name: str
    context: ContextEntry


class File(msgspec.Struct, rename="kebab"):
    clusters: list[NamedCluster] | None = None
    users: list[NamedUser] | None = None
    contexts: list[NamedContext] | None = None
    current_context: str = ""


class Named(Protocol):
    name: str


N = TypeVar("N", bound=Named)


def read(path: Path) -> tuple[ClusterEntry, UserEntry, str]:
    """Cluster, user and namespace of the file's current context."""
    try:
        file = msgspec.convert(without_nulls(msgspec.yaml.decode(path.read_bytes())), File)
    except OSError as error:
        raise ConfigError(f"cannot read the kubeconfig {path}: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"the kubeconfig {path} cannot be understood: {error}") from error
    if not file.current_context:
        raise ConfigError(f"the kubeconfig {path} has no current-context")
    context = chosen(file.contexts, file.current_context, "context", path).context
    cluster = chosen(file.clusters, context.cluster, "cluster", path).cluster
    user = chosen(file.users, context.user, "user", path).user if context.user else UserEntry()
    return cluster, user, context.namespace or "default"


def without_nulls(value: object) -> object:
    """`namespace:` with nothing behind it is as good as left out."""
    match value:
        case dict():
            return {name: without_nulls(of) for name, of in value.items() if of is not None}
        case list():
            return [without_nulls(of) for of in value]
    return value


def chosen(entries: Sequence[N] | None, name: str, what: str, path: Path) -> N:
    for entry in entries or ():
        if entry.name == name:
            return entry
    known = ", ".join(repr(entry.name) for entry in entries or ()) or "none"
    raise ConfigError(f"the kubeconfig {path} has no {what} {name!r} (it has: {known})")
