"""Who we are to the API server: the `Authorization` header of each request, and what to do when it is refused.

Forms: nothing, a fixed token or password, a token file that is re-read (projected tokens rotate), a client certificate
in files, which are re-read too, an exec plugin (`client.authentication.k8s.io/v1` and `v1beta1`), which may also give a
client certificate. Secrets are kept here and in the TLS context only, and are in no message and no `repr`.
"""

import base64
import json
import math
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import anyio
import msgspec
import trio

from csi_provisioner.logs import log

# A kubelet rotates a projected token when 80 % of its life are over: a minute is soon enough, for certificates too
FILE_AGE = 60.0
# Less than a request's own deadline, so that the message is about the plugin
PLUGIN_LIMIT = 25.0
# A credential that ends while the request is under way helps nobody
PLUGIN_MARGIN = 10.0
PLUGIN_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class CredentialError(Exception):
    """No credential could be had now; trying again later may work."""


class Credentials(Protocol):
    async def authorization(self) -> str | None:
        """The value of the header, fresh as far as can be known."""

    async def refused(self, value: str | None) -> bool:
        """The server answered 401 to this value: whether there is a newer one to try."""


class Fixed:
    """A token, a password, or nothing at all (anonymous, or a client certificate)."""

    def __init__(self, value: str | None = None) -> None:
        self._value = value

    @classmethod
    def token(cls, token: str) -> "Fixed":
        return cls(f"Bearer {token.strip()}")

    @classmethod
    def password(cls, user: str, password: str) -> "Fixed":
        return cls("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())

    async def authorization(self) -> str | None:
        return self._value

    async def refused(self, value: str | None) -> bool:
        return False


class TokenFile:
    """A token that others replace on disk. While the file cannot be read, the last token is used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value: str | None = None
        self._read_at = -math.inf

    async def authorization(self) -> str | None:
        if trio.current_time() - self._read_at >= FILE_AGE:
            self._read()
        return self._value

    async def refused(self, value: str | None) -> bool:
        self._read()
        return self._value != value

    def _read(self) -> None:
        try:
            token, trouble = self._path.read_text().strip(), "it is empty"
        except (OSError, UnicodeDecodeError) as error:
            token, trouble = "", str(error)
        if token:
            self._value = f"Bearer {token}"
        elif self._value is None:
            raise CredentialError(f"cannot read the token file {self._path}: {trouble}")
        else:
            log.warning("The token file cannot be read, going on with the last token", path=self._path, err=trouble)
        self._read_at = trio.current_time()


class CertificateFiles:
    """A client certificate that others replace on disk: the connections that are made from then on show the new one."""

    def __init__(self, certificate: Path, key: Path, tls: ssl.SSLContext) -> None:
        self._certificate = certificate
        self._key = key
        self._tls = tls
        self._pair = (b"", b"")
        self._read_at = -math.inf

    async def authorization(self) -> str | None:
        if trio.current_time() - self._read_at >= FILE_AGE:
            self._read()
        return None

    async def refused(self, value: str | None) -> bool:
        self._read()
        return True  # nobody knows here which one it was: the connection may be older than the last that was read

    def _read(self) -> None:
        self._read_at = trio.current_time()
        try:
            pair = self._certificate.read_bytes(), self._key.read_bytes()
            if pair != self._pair:
                load_certificate(self._tls, *pair)
                self._pair = pair
        except (OSError, ValueError) as error:  # perhaps only one of the two has been replaced yet
            path = self._certificate
            log.warning("The client certificate cannot be read, going on with the last one", path=path, err=str(error))


class _PluginStatus(msgspec.Struct):
    token: str | None = None
    clientCertificateData: str | None = None
    clientKeyData: str | None = None
    expirationTimestamp: datetime | None = None


class _PluginAnswer(msgspec.Struct):
    apiVersion: str
    kind: str
    status: _PluginStatus


class Plugin:
    """A program that prints a credential. Run when there is none, when it has expired, and when it was refused."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        version: str,
        environment: Mapping[str, str],
        cluster: Mapping[str, object] | None = None,
        hint: str = "",
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
        limit: float = PLUGIN_LIMIT,
    ) -> None:
        spec = {"interactive": False} | ({"cluster": cluster} if cluster is not None else {})
        info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
        self._command = list(command)
        self._version = version
        self._environment = {**environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        self._hint = hint
        self._tls = tls
        self._now = now
        self._limit = limit
        self._value: str | None = None
        self._good_until = -math.inf
        self._runs = 0
        self._running = trio.Lock()  # one run serves all who wait for it

    async def authorization(self) -> str | None:
        if self._now() >= self._good_until:
            async with self._running:
                if self._now() >= self._good_until:
                    await self._run()
        return self._value

    async def refused(self, value: str | None) -> bool:
        runs = self._runs
        async with self._running:
            if self._value == value and self._runs == runs:  # else somebody has run it meanwhile
                await self._run()
        return True

    async def _run(self) -> None:
        status = self._understood(await self._printed())
        if status.clientCertificateData and status.clientKeyData and self._tls is not None:
            try:
                load_certificate(self._tls, status.clientCertificateData.encode(), status.clientKeyData.encode())
            except (OSError, ValueError) as error:
                raise CredentialError(f"{self._name} gave a client certificate of no use: {error}") from error
        elif not status.token:
            raise CredentialError(f"{self._name} gave neither a token nor a client certificate")
        self._value = f"Bearer {status.token}" if status.token else None
        self._runs += 1
        expires = status.expirationTimestamp
        self._good_until = math.inf if expires is None else expires.astimezone(UTC).timestamp() - PLUGIN_MARGIN

    async def _printed(self) -> bytes:
        try:
            with trio.fail_after(self._limit):
                done = await anyio.run_process(
                    self._command, check=False, stdin=subprocess.DEVNULL, env=self._environment
                )
        except trio.TooSlowError as error:
            raise CredentialError(f"{self._name} did not end within {self._limit:g} s") from error
        except OSError as error:
            hint = f"; {self._hint}" if self._hint else ""
            raise CredentialError(f"{self._name} cannot be run: {error}{hint}") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.decode("utf-8", "replace").split())[:300]
            raise CredentialError(f"{self._name} ended with code {done.returncode}: {said}")
        return done.stdout

    def _understood(self, printed: bytes) -> _PluginStatus:
        try:
            answer = msgspec.json.decode(printed, type=_PluginAnswer)
        except msgspec.DecodeError as error:
            raise CredentialError(f"{self._name} did not print an ExecCredential: {error}") from error
        if (answer.kind, answer.apiVersion) != ("ExecCredential", self._version):
            raise CredentialError(f"{self._name} printed {answer.kind} of {answer.apiVersion}, not of {self._version}")
        return answer.status

    @property
    def _name(self) -> str:
        return f"the credential plugin {self._command[0]}"


def load_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """From memory, all or nothing."""
    with _readable_file(certificate + b"\n" + key) as path:
        # First where it does no harm: a pair that does not fit would leave `tls` with half of it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, password=_no_password)
        tls.load_cert_chain(path)


def _no_password() -> str:
    """Otherwise it would be asked for on the terminal, and all would wait for the answer."""
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


@contextmanager
def _readable_file(content: bytes) -> Iterator[str]:
    """The ssl module reads files only, so there is one for a moment, readable for us alone; where it can be had, one
    that is on no disk, as a pod's may be read-only."""
    in_memory = hasattr(os, "memfd_create")
    with open(os.memfd_create("pair"), "wb") if in_memory else tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}" if in_memory else file.name
