"""Where the API server is and how to be let in: from flags, the environment and the pod (design.md section 4).

Order: `--kubeconfig` or KUBE_CONFIG_PATH, `--master` alone, the service account of the pod, KUBECONFIG. Reads files,
opens no connection. What is wrong is Fatal, with a text that names the entry and no secret. Which proxy is used
is decided in `proxy`; credentials and certificates that change over time are kept fresh by `credentials` and `tls`.
"""

import os
import re
import ssl
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.credentials import (
    PLUGIN_VERSIONS,
    CertificateFiles,
    Credentials,
    Fixed,
    Plugin,
    TokenFile,
    bearer,
    header,
)
from csi_provisioner.kube.kubeconfig import ClusterEntry, ExecEntry, UserEntry, read
from csi_provisioner.kube.proxy import Url, address_of, basic, parsed, proxy_for
from csi_provisioner.kube.tls import Tls, content
from csi_provisioner.kube.transport import Route
from csi_provisioner.logs import log
from csi_provisioner.settings import ClusterSettings

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Cluster(msgspec.Struct, frozen=True):
    """One API server and all that is needed to speak to it, the same for all clients of the process.

    Run `credentials.run` as long as there are clients.
    """

    server: Url
    source: str
    """Where all this comes from, for people."""
    credentials: Credentials
    route: Route
    headers: Sequence[tuple[str, str]] = ()
    origin: str = ""
    """Goes before each path where a proxy reads the requests (plain HTTP only)."""
    troubles: set[str] = msgspec.field(default_factory=set)
    """Causes that people were told of, by whichever client met them first: one outage is one line."""


def resolve(
    settings: ClusterSettings, *, account: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ
) -> Cluster:
    if settings.kubeconfig:
        return from_file(Path(settings.kubeconfig), settings.master, environment)
    if settings.master:
        entry = ClusterEntry(server=settings.master)
        return Entries(entry, UserEntry(), "--master", environment).assemble()
    if settings.service_host and settings.service_port:
        return from_pod(settings.service_host, settings.service_port, account, environment)
    if settings.fallback_kubeconfig:
        return from_file(Path(settings.fallback_kubeconfig), None, environment)
    raise Fatal(
        "do not know where the API server is: give --kubeconfig (or KUBE_CONFIG_PATH), or --master, or run in a pod "
        "with a service account (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT), or set KUBECONFIG",
        255,
    )


def from_file(path: Path, master: str | None, environment: Mapping[str, str]) -> Cluster:
    cluster, user = read(path)
    if master:
        cluster.server = master
    if not cluster.server:
        raise Fatal(f"the cluster of the kubeconfig {path} has no server; --master can give one", 255)
    entries = Entries(cluster, user, f"kubeconfig {path}", environment, path.parent)
    found = entries.assemble()
    if found.route.tls is not None and found.route.tls.trouble is not None:
        with entries.using("certificate-authority"):
            raise found.route.tls.trouble
    return found


def from_pod(host: str, port: str, account: Path, environment: Mapping[str, str]) -> Cluster:
    token, authority = account / "token", account / "ca.crt"
    # Only to fail at the start, with a reason. Each request reads it anew, as the kubelet replaces it.
    try:
        content(token).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Fatal(
            f"cannot read the token of the pod's service account, {token}: {reason}; is "
            "automountServiceAccountToken off, or does the file belong to another user?",
            255,
        ) from error
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    cluster = ClusterEntry(server=server, certificate_authority=str(authority))
    user = UserEntry(token_file=str(token))
    found = Entries(cluster, user, "service account of the pod", environment).assemble()
    if found.route.tls is not None and found.route.tls.trouble is not None:
        trouble = str(found.route.tls.trouble)
        log.error("The service account's CA cannot be read, trusting the system's", path=authority, err=trouble)
    return found


class Entries(msgspec.Struct, frozen=True):
    """What was found, and what it means for a connection. `folder` is what relative paths start from."""

    cluster: ClusterEntry
    user: UserEntry
    source: str
    environment: Mapping[str, str]
    folder: Path = Path()

    @contextmanager
    def using(self, entry: str) -> Iterator[None]:
        """Errors from within name the entry."""
        try:
            yield
        except (OSError, TypeError, ValueError) as error:
            raise Fatal(f"cannot use the {entry} of {self.source}: {error}", 255) from error

    def assemble(self) -> Cluster:
        given = self.cluster
        server = url_of(self.server(), f"server of {self.source}")
        tls, server_name = None, (given.tls_server_name or server.host).removesuffix(".")
        server_name = str(address_of(server_name) or server_name)
        if server.scheme == "https":
            tls = self.tls()
            with self.using("tls-server-name" if given.tls_server_name else "server"):  # whether it can be a name
                tls.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_name)
        wanted = given.proxy_url or proxy_for(server, self.environment)
        proxy = url_of(wanted, "proxy (proxy-url, HTTPS_PROXY or HTTP_PROXY)") if wanted else None
        # as client-go has it, what is said of the server's certificate holds for the proxy's too
        proxy_tls = tls or self.tls() if proxy is not None and proxy.scheme == "https" else None
        proxy_name = server_name if given.tls_server_name or proxy is None else proxy.host
        route = Route((server.host, server.port), tls, server_name, proxy, proxy_tls, proxy_name)
        headers, origin = self.impersonation(), ""
        if proxy is not None and tls is None:  # the proxy sees the requests themselves
            route = Route((proxy.host, proxy.port), proxy_tls, proxy_name)
            headers += proxy.proxy_fields()
            origin = f"http://{server.authority}"
        return Cluster(server, self.source, self.credentials(server, tls), route, headers, origin)

    def server(self) -> str:
        """Its URL. Without a scheme it is https if any other entry speaks of TLS."""
        given = self.cluster
        if "://" in given.server:
            return given.server
        authority = given.certificate_authority or given.certificate_authority_data or given.insecure_skip_tls_verify
        secured = authority or self.user.client_certificate or self.user.client_certificate_data
        return f"https://{given.server}" if secured else f"http://{given.server}"

    def tls(self) -> Tls:
        given, user = self.cluster, self.user
        data = self.content("certificate-authority", given.certificate_authority_data, "")
        file = self.folder / given.certificate_authority if given.certificate_authority and not data else None
        source = f"the certificate-authority-data of {self.source}" if data else str(file or "")
        with self.using("certificate-authority-data"):
            tls = Tls(data, file, source=source, verify=not given.insecure_skip_tls_verify)
        certificate = self.content("client-certificate", user.client_certificate_data, user.client_certificate)
        key = self.content("client-key", user.client_key_data, user.client_key)
        with self.using("client-certificate or client-key"):
            if certificate and key:
                tls.present(certificate, key)
            elif certificate or key:
                raise ValueError("a client certificate needs its key, and a key its certificate")
        return tls

    def content(self, entry: str, data: str, file: str) -> bytes:
        with self.using(f"{entry}-data" if data else entry):
            if data:  # strictly: what is not base64 would otherwise become nothing, and nothing means the system's
                return b64decode("".join(data.split()), validate=True)
            return content(self.folder / file) if file else b""

    def credentials(self, server: Url, tls: Tls | None) -> Credentials:
        user = self.user
        # The first that is there, in client-go's order: also a token file before a token.
        if user.token_file:
            return TokenFile(self.folder / user.token_file)
        if user.token:
            with self.using("token"):
                return Fixed(bearer(user.token))
        if user.exec is not None:
            with self.using("exec plugin"):
                return self.plugin(user.exec, tls)
        if user.username:
            return Fixed(basic(f"{user.username}:{user.password}".encode()))
        if user.auth_provider:
            raise Fatal("the user's auth-provider is not supported: it was replaced by exec plugins", 255)
        if server.login:
            return Fixed(basic(server.login))
        # Only files can be replaced: what the kubeconfig itself holds stays as it is.
        if tls is not None and user.client_certificate and not (user.client_certificate_data or user.client_key_data):
            return CertificateFiles(self.folder / user.client_certificate, self.folder / user.client_key, tls)
        return Fixed()

    def plugin(self, entry: ExecEntry, tls: Tls | None) -> Plugin:
        if entry.apiVersion not in PLUGIN_VERSIONS:
            raise ValueError(f"its apiVersion {entry.apiVersion!r} is none of {', '.join(PLUGIN_VERSIONS)}")
        # a bare name is looked for in PATH, a relative path starts from the kubeconfig
        command = str(self.folder.absolute() / entry.command) if "/" in entry.command else entry.command
        own = {variable.name: variable.value for variable in entry.env or ()}
        told = self.told_to_plugin() if entry.provideClusterInfo else None
        environment = {**self.environment, **own}
        return Plugin([command, *(entry.args or ())], entry.apiVersion, environment, told, entry.installHint, tls)

    def told_to_plugin(self) -> dict[str, object]:
        given = self.cluster
        authority = self.content("certificate-authority", given.certificate_authority_data, given.certificate_authority)
        wanted = "client.authentication.k8s.io/exec"
        # In place of files their content: the plugin may not see them.
        told = msgspec.to_builtins(given) | {
            "certificate-authority": None,
            "certificate-authority-data": b64encode(authority).decode(),
            "extensions": None,
            "config": next((e.get("extension") for e in given.extensions or () if e.get("name") == wanted), None),
        }
        return {name: value for name, value in told.items() if value}

    def impersonation(self) -> list[tuple[str, str]]:
        user = self.user
        fields = [("Impersonate-User", user.as_user), ("Impersonate-Uid", user.as_uid)]
        fields += [("Impersonate-Group", group) for group in user.as_groups or ()]
        for key, values in (user.as_user_extra or {}).items():
            fields += [(f"Impersonate-Extra-{quote(key, safe='')}", value) for value in values]
        with self.using("impersonation (as, as-uid, as-groups, as-user-extra)"):
            return [(name, header(value)) for name, value in fields if value]


def url_of(text: str, entry: str) -> Url:
    """Errors leave out what stands before the host: it may hold a password."""
    with suppress(ValueError):  # without it as a cause: its text may hold the password
        return parsed(text)
    shown = re.sub(r"(?s)^(\w+://)?.*@", r"\1***@", text)
    raise Fatal(f"cannot use the {entry}: {shown!r} is not an http:// or https:// URL", 255)
