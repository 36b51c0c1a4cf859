"""The kubeconfig file, as far as it is understood: one context of it, with its cluster and its user.

Reading and choosing only; what the entries mean for a connection is `config`'s. Everything that is wrong with the file
is Fatal, with a text that names the file and the place.
"""

from pathlib import Path
from typing import ClassVar

import msgspec
import yaml

from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.tls import content

# Far more than a kubeconfig has, and far less than what exhausts the stack of libyaml's loader
DEEPEST = 100
# Each may stand for text that has others: with some more a file of a few lines would never be read to its end
MOST_ALIASES = 20
NULL, TIMESTAMP = "tag:yaml.org,2002:null", "tag:yaml.org,2002:timestamp"
# Entries that are not text: switches, and what is handed on to a plugin as it is
TYPED = ("insecure-skip-tls-verify", "provideClusterInfo", "extension")


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


class Named(msgspec.Struct):
    """An entry of one of the three lists; each list fills one field."""

    name: str
    cluster: ClusterEntry | None = None
    user: UserEntry | None = None
    context: ContextEntry | None = None


# Bytes: a person's may have the certificates of a thousand clusters
LARGEST = 16 << 20


class File(msgspec.Struct, rename="kebab"):
    clusters: list[Named] | None = None
    users: list[Named] | None = None
    contexts: list[Named] | None = None
    current_context: str = ""


def read(path: Path) -> tuple[ClusterEntry, UserEntry]:
    """Cluster and user of the file's current context."""
    try:
        file = msgspec.convert(_parsed(content(path, LARGEST)), File)
    except OSError as error:
        raise Fatal(f"cannot read the kubeconfig {path}: {error.strerror or error}", 255) from error
    except (yaml.YAMLError, msgspec.ValidationError, ValueError) as error:
        raise Fatal(f"the kubeconfig {path} cannot be understood: {_without_text(error)}", 255) from error
    if not file.current_context:
        raise Fatal(f"the kubeconfig {path} has no current-context", 255)
    context = _chosen(file.contexts, file.current_context, "context", path).context or ContextEntry()
    cluster = _chosen(file.clusters, context.cluster, "cluster", path).cluster
    # A context may name no user: then no credentials are sent.
    user = _chosen(file.users, context.user, "user", path).user if context.user else None
    return cluster or ClusterEntry(), user or UserEntry()


class TextLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads every scalar as its text, whatever YAML 1.1 takes it for (dates, numbers, `no`), but for the few entries
    that are not text. An entry without a value counts as left out."""

    yaml_constructors: ClassVar = {NULL: lambda _loader, _node: None}
    yaml_implicit_resolvers: ClassVar = {
        first: [resolver for resolver in resolvers if resolver[0] != TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, object]:
        self.flatten_mapping(node)
        return {
            str(key.value): _typed(key.value, value) if key.value in TYPED else self.construct_object(value)
            for key, value in node.value
            if value.tag != NULL
        }


def _typed(entry: str, node: yaml.Node) -> object:
    try:
        return yaml.constructor.SafeConstructor().construct_object(node, deep=True)
    except Exception as error:  # of many kinds: a value that its tag does not fit
        raise ValueError(f"the value of {entry} is not what its tag says") from error


def _parsed(text: bytes) -> object:
    """The first document."""
    # Counted before anything is built: the loader goes as deep on the stack as the document does.
    depth = aliases = 0
    for event in yaml.parse(text, TextLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST or aliases > MOST_ALIASES:
            raise ValueError(f"it is nested more than {DEEPEST} deep, or has more than {MOST_ALIASES} aliases")
    return next(yaml.load_all(text, TextLoader), None)


def _without_text(error: Exception) -> str:
    """YAML's errors may quote the line, and with it a secret."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return str(error)


def _chosen(entries: list[Named] | None, name: str, what: str, path: Path) -> Named:
    named = {entry.name: entry for entry in reversed(entries or [])}  # of several by one name the first
    if name not in named:
        known = ", ".join(map(repr, reversed(named))) or "none"
        raise Fatal(f"the kubeconfig {path} has no {what} {name!r} (it has: {known})", 255)
    return named[name]
