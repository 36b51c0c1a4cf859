"""Where the API server is and how to be let in: from flags, the environment and the pod (design.md section 4).

Order: `--kubeconfig` or KUBE_CONFIG_PATH, `--master` alone, the service account of the pod, KUBECONFIG. Reads files,
opens no connection. What is wrong is a ConfigError, for people. Which proxy is used is decided in `proxy`; credentials
that change over time are kept fresh by `credentials`.
"""

import os
import ssl
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import httpx2
import msgspec

from csi_provisioner.kube.credentials import (
    PLUGIN_VERSIONS,
    CertificateFiles,
    Credentials,
    Fixed,
    Plugin,
    TokenFile,
    load_certificate,
)
from csi_provisioner.kube.kubeconfig import ClusterEntry, ConfigError, ExecEntry, UserEntry, read
from csi_provisioner.kube.proxy import proxy_for
from csi_provisioner.kube.transport import REQUESTS, STREAMS, ProxyTransport, Transport
from csi_provisioner.logs import log
from csi_provisioner.settings import ClusterSettings

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """One API server, and everything that is needed to speak to it."""

    server: httpx2.URL
    source: str
    """Where we know it from, for people."""
    credentials: Credentials
    namespace: str
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def transport(self) -> httpx2.AsyncBaseTransport:
        if self.proxy is None:
            return Transport(self.server.host, port_of(self.server), tls=self.tls, server_name=self.server_name)
        limits = httpx2.Limits(max_connections=REQUESTS + STREAMS, max_keepalive_connections=REQUESTS)
        return ProxyTransport(verify=self.tls or True, proxy=self.proxy, limits=limits)


def resolve(
    settings: ClusterSettings, *, account: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ
) -> Cluster:
    if settings.kubeconfig:
        return from_file(Path(settings.kubeconfig), settings.master, environment)
    if settings.master:
        entry = ClusterEntry(server=settings.master)
        return assemble(entry, UserEntry(), "default", "--master", folder=Path(), environment=environment)
    if settings.service_host and settings.service_port:
        return from_pod(settings.service_host, settings.service_port, account, environment)
    if settings.fallback_kubeconfig:
        return from_file(Path(settings.fallback_kubeconfig), None, environment)
    raise ConfigError(
        "do not know where the API server is: give --kubeconfig (or KUBE_CONFIG_PATH), or --master, or run in a pod "
        "with a service account (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT), or set KUBECONFIG"
    )


def from_file(path: Path, master: str | None, environment: Mapping[str, str]) -> Cluster:
    cluster, user, namespace = read(path)
    if master:
        cluster.server = master
    if not cluster.server:
        raise ConfigError(f"the cluster of the kubeconfig {path} has no server; --master can give one")
    return assemble(cluster, user, namespace, f"kubeconfig {path}", folder=path.parent, environment=environment)


def from_pod(host: str, port: str, account: Path, environment: Mapping[str, str]) -> Cluster:
    try:
        (account / "token").read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot read the token of the pod's service account, {account / 'token'}: {reason}; is "
            "automountServiceAccountToken off, or does the file belong to another user?"
        ) from error
    authority = str(account / "ca.crt")
    try:
        ssl.create_default_context(cafile=authority)
    except OSError as error:  # the ssl module's own errors are OSErrors too
        log.error("The service account's CA cannot be read, trusting the system's", path=authority, err=str(error))
        authority = ""
    try:
        namespace = (account / "namespace").read_text().strip()
    except (OSError, UnicodeDecodeError):
        namespace = ""
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    cluster = ClusterEntry(server=server, certificate_authority=authority)
    user = UserEntry(token_file=str(account / "token"))
    source = "service account of the pod"
    return assemble(cluster, user, namespace or "default", source, folder=account, environment=environment)


def assemble(
    cluster: ClusterEntry,
    user: UserEntry,
    namespace: str,
    source: str,
    *,
    folder: Path,
    environment: Mapping[str, str],
) -> Cluster:
    """`folder` is what relative paths of the entries start from."""
    server = server_url(cluster)
    try:
        tls = tls_of(cluster, user, folder) if server.scheme == "https" else None
        credentials = credentials_of(user, cluster, tls, folder, environment)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use the certificates for {server} ({source}): {error}") from error
    proxy = cluster.proxy_url or proxy_for(server.scheme, server.host, port_of(server), environment)
    if proxy:
        check_proxy(proxy)
    return Cluster(
        server=server,
        source=source,
        credentials=credentials,
        namespace=namespace,
        tls=tls,
        server_name=cluster.tls_server_name,
        proxy=proxy,
        headers=impersonation(user),
    )


def check_proxy(proxy: str) -> None:
    """Without showing it: a password may be in it."""
    try:
        url = httpx2.URL(proxy)
    except httpx2.InvalidURL as error:
        raise ConfigError("the proxy (proxy-url, or HTTPS_PROXY or HTTP_PROXY) is not a URL") from error
    if url.scheme not in ("http", "https"):
        raise ConfigError(f"the proxy {url.host} must be http:// or https://; others are not supported")


def server_url(cluster: ClusterEntry) -> httpx2.URL:
    text = cluster.server
    if "://" not in text:
        secured = (
            cluster.certificate_authority or cluster.certificate_authority_data or cluster.insecure_skip_tls_verify
        )
        text = f"https://{text}" if secured else f"http://{text}"
    try:
        server = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"the server {text!r} is not a URL: {error}") from error
    if server.scheme not in ("http", "https") or not server.host:
        raise ConfigError(f"the server {text!r} is not an http:// or https:// URL")
    return server


def port_of(server: httpx2.URL) -> int:
    return server.port or (443 if server.scheme == "https" else 80)


def tls_of(cluster: ClusterEntry, user: UserEntry, folder: Path) -> ssl.SSLContext:
    data, file = cluster.certificate_authority_data, cluster.certificate_authority
    # what stands between the certificates may be in any language
    authority = content(data, file, folder).decode("ascii", "ignore")
    if (data or file) and not authority:
        raise ValueError("the certificate authority is empty")
    tls = ssl.create_default_context(cadata=authority or None)
    # Newer Pythons refuse CAs without key identifiers, which many clusters have and every other client accepts
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.insecure_skip_tls_verify:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    certificate = content(user.client_certificate_data, user.client_certificate, folder)
    key = content(user.client_key_data, user.client_key, folder)
    if certificate and key:
        load_certificate(tls, certificate, key)
    elif certificate or key:
        raise ValueError("a client certificate needs its key, and a key its certificate")
    return tls


def content(data: str, file: str, folder: Path) -> bytes:
    if data:
        return decoded(data)
    return (folder / file).read_bytes() if file else b""


def decoded(data: str) -> bytes:
    """Strictly: what is not base64 would otherwise become nothing, and nothing means the system's authorities."""
    return b64decode("".join(data.split()), validate=True)


def credentials_of(
    user: UserEntry, cluster: ClusterEntry, tls: ssl.SSLContext | None, folder: Path, environment: Mapping[str, str]
) -> Credentials:
    if user.token_file:
        return TokenFile(folder / user.token_file)
    if user.token:
        return Fixed.token(user.token)
    if user.exec is not None:
        return plugin(user.exec, cluster, tls, folder, environment)
    if user.username:
        return Fixed.password(user.username, user.password)
    if user.auth_provider:
        raise ConfigError("the user's auth-provider is not supported: it was replaced by exec plugins")
    if tls is not None and user.client_certificate and not (user.client_certificate_data or user.client_key_data):
        return CertificateFiles(folder / user.client_certificate, folder / user.client_key, tls)
    return Fixed()


def plugin(
    entry: ExecEntry, cluster: ClusterEntry, tls: ssl.SSLContext | None, folder: Path, environment: Mapping[str, str]
) -> Plugin:
    if entry.apiVersion not in PLUGIN_VERSIONS:
        raise ConfigError(f"the exec plugin's apiVersion {entry.apiVersion!r} is none of {', '.join(PLUGIN_VERSIONS)}")
    # a bare name is looked for in PATH, a relative path starts from the kubeconfig
    command = str(folder.absolute() / entry.command) if "/" in entry.command else entry.command
    own = {variable.name: variable.value for variable in entry.env or ()}
    return Plugin(
        [command, *(entry.args or ())],
        version=entry.apiVersion,
        environment={**environment, **own},
        cluster=told_to_plugin(cluster, folder) if entry.provideClusterInfo else None,
        hint=entry.installHint,
        tls=tls,
    )


def told_to_plugin(cluster: ClusterEntry, folder: Path) -> dict[str, object]:
    authority = content(cluster.certificate_authority_data, cluster.certificate_authority, folder)
    given: dict[str, object] = {
        "server": cluster.server,
        "certificate-authority-data": b64encode(authority).decode(),
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "tls-server-name": cluster.tls_server_name,
        "proxy-url": cluster.proxy_url,
        "config": next(
            (
                e.get("extension")
                for e in cluster.extensions or ()
                if e.get("name") == "client.authentication.k8s.io/exec"
            ),
            None,
        ),
    }
    return {name: value for name, value in given.items() if value}


def impersonation(user: UserEntry) -> tuple[tuple[str, str], ...]:
    fields = [("Impersonate-User", user.as_user), ("Impersonate-Uid", user.as_uid)]
    fields += [("Impersonate-Group", group) for group in user.as_groups or ()]
    for key, values in (user.as_user_extra or {}).items():
        fields += [(f"Impersonate-Extra-{quote(key, safe='')}", value) for value in values]
    return tuple(field for field in fields if field[1])
