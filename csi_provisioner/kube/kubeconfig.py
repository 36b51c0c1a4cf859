"""The kubeconfig file, as far as it is understood: one context of it, with its cluster and its user.

Reading and choosing only; what the entries mean for a connection is `config`'s. Everything that is wrong with the file
is Fatal, with a text that names the file and the place.
"""

from pathlib import Path

import msgspec

from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.tls import content


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
        file = _decoded(content(path, LARGEST))
    except OSError as error:
        raise Fatal(f"cannot read the kubeconfig {path}: {error.strerror or error}", 255) from error
    except (msgspec.ValidationError, ValueError) as error:
        raise Fatal(f"the kubeconfig {path} cannot be understood: {error}", 255) from error
    if not file.current_context:
        raise Fatal(f"the kubeconfig {path} has no current-context", 255)
    context = _chosen(file.contexts, file.current_context, "context", path).context or ContextEntry()
    cluster = _chosen(file.clusters, context.cluster, "cluster", path).cluster
    # A context may name no user: then no credentials are sent.
    user = _chosen(file.users, context.user, "user", path).user if context.user else None
    return cluster or ClusterEntry(), user or UserEntry()


def _decoded(text: bytes) -> File:
    try:
        return msgspec.json.decode(text, type=File)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Not before: many files are JSON, which programs write, and a parser of YAML takes 20 ms to load.
        from csi_provisioner.kube import plaintext

        return msgspec.convert(plaintext.document(text), File)


def _chosen(entries: list[Named] | None, name: str, what: str, path: Path) -> Named:
    named = {entry.name: entry for entry in reversed(entries or [])}  # of several by one name the first
    if name not in named:
        known = ", ".join(map(repr, reversed(named))) or "none"
        raise Fatal(f"the kubeconfig {path} has no {what} {name!r} (it has: {known})", 255)
    return named[name]
