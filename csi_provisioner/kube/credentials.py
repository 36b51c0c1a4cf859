"""Who we are to the API server: the `Authorization` header of each request, and what to do when it is refused.

Forms: nothing, a fixed token or password, a token file that is re-read (projected tokens rotate), a client certificate
in files, which are re-read too, an exec plugin (`client.authentication.k8s.io/v1` and `v1beta1`), which may also give a
client certificate. One for all clients of a process. Secrets are kept here and in the TLS context only, and are in no
message and no `repr`.
"""

import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import trio

from csi_provisioner.kube.errors import UNDECODABLE, KubeError
from csi_provisioner.kube.tls import FILE_AGE, Replaced, Tls
from csi_provisioner.logs import log

# Less than a request's own deadline, so that the message is about the plugin
PLUGIN_LIMIT = 25.0
# For what it printed to arrive once it has ended. A child that it leaves behind (an agent, a connection that is shared)
# keeps its pipes open, and would count as the plugin itself until the limit.
PLUGIN_REST = 1.0
# Of each of a plugin's outputs, in bytes: a token and a certificate have some thousands
PLUGIN_OUTPUT = 1 << 20
# Of what is left of a credential's life, when the next one is asked for; and no sooner than after so many seconds, for
# a plugin that gives the same one until its very end
PLUGIN_SHARE, PLUGIN_PAUSE = 0.8, 1.0
# Of these a header may hold none
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
PLUGIN_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class Fixed:
    """A token, a password, or nothing at all (anonymous, or a client certificate)."""

    def __init__(self, value: str | None = None) -> None:
        self._value = value

    async def authorization(self) -> str | None:
        """The value of the header, fresh as far as can be known."""
        return self._value

    async def refused(self, value: str | None) -> bool:
        """The server answered 401 to this value: whether there is a newer one to try."""
        return False

    async def run(self) -> None:
        """The service that keeps it fresh, if there is one; runs as long as there are clients."""


class TokenFile(Fixed):
    """A token that others replace on disk. While the file cannot be read, the last token is used."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file = Replaced("The token file", path, take=self._take)

    def _take(self, content: bytes) -> None:
        self._value = bearer(content.decode())

    async def authorization(self) -> str | None:
        self._file.look(FILE_AGE if self._value else 0)
        if self._value is None:
            raise KubeError(0, "Credentials", f"cannot read the token file {self._path}: {self._file.trouble}")
        return self._value

    async def refused(self, value: str | None) -> bool:
        self._file.look(0)
        return self._value != value


class CertificateFiles(Fixed):
    """A client certificate that others replace on disk: the connections that are made from then on show the new one."""

    def __init__(self, certificate: Path, key: Path, tls: Tls) -> None:
        super().__init__()
        self._files = Replaced("The client certificate", certificate, key, take=tls.present)

    async def authorization(self) -> str | None:
        self._files.look()
        return None

    async def refused(self, value: str | None) -> bool:
        self._files.look(0)
        return True  # nobody knows here which one it was: the connection may be older than the last that was read


class _PluginStatus(msgspec.Struct):
    token: str | None = None
    clientCertificateData: str | None = None
    clientKeyData: str | None = None
    expirationTimestamp: datetime | None = None


class _PluginAnswer(msgspec.Struct):
    apiVersion: str
    kind: str
    status: _PluginStatus


class Plugin(msgspec.Struct, eq=False, dict=True):
    """A program that prints a credential. `run` asks it at once, before the credential ends, and when it was
    refused. Requests wait for the run under way, and a request that is cancelled leaves it running for the others.

    `cluster` is what it is told of the cluster, `hint` how to get it.
    """

    command: Sequence[str]
    version: str
    environment: Mapping[str, str]
    cluster: Mapping[str, object] | None = None
    hint: str = ""
    tls: Tls | None = None
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        spec = {"interactive": False} | ({"cluster": self.cluster} if self.cluster is not None else {})
        info = {"apiVersion": self.version, "kind": "ExecCredential", "spec": spec}
        self._environment = {**self.environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        self._value: str | None = None
        self._good_until = -math.inf
        self._trouble = ""
        self._wanted = trio.Event()
        self._ended = trio.Event()  # the run under way, or the next one

    __repr__ = object.__repr__

    async def authorization(self) -> str | None:
        if self.now() >= self._good_until:
            await self._next_run()
        return self._value

    async def refused(self, value: str | None) -> bool:
        # Of many requests that are refused at once the first makes the plugin run, and the others find its answer.
        if self._value == value:
            await self._next_run()
        return True

    async def _next_run(self) -> None:
        self._wanted.set()
        await self._ended.wait()
        if self._trouble:
            raise KubeError(0, "Credentials", self._trouble)

    async def run(self) -> None:
        while True:
            try:
                self._take(await self._printed())
                # Not before: who waited for the run that failed may have its turn only now.
                self._trouble = ""
            except (OSError, ValueError) as error:
                self._trouble = f"the credential plugin {self.command[0]} failed: {error}"
                if self.now() < self._good_until:
                    log.warning("No new credential, going on with the last one", err=self._trouble)
            self._wanted = trio.Event()
            self._ended.set()
            self._ended = trio.Event()
            left = self._good_until - self.now()
            with trio.move_on_after(max(left * PLUGIN_SHARE, PLUGIN_PAUSE) if left > 0 else math.inf):
                await self._wanted.wait()

    async def _printed(self) -> bytes:
        """What the program printed. Whatever goes wrong is a ValueError, here and in `_take`."""
        printed, said = bytearray(), bytearray()
        options = {"check": False, "env": self._environment, "start_new_session": True, "deliver_cancel": _kill}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

        async def collect(stream: trio.abc.ReceiveStream, output: bytearray) -> None:
            async with stream:
                async for chunk in stream:
                    output += chunk
                    if len(output) > PLUGIN_OUTPUT:
                        raise ValueError(f"it printed more than {PLUGIN_OUTPUT >> 20} MiB")

        trouble = ""
        try:
            with trio.fail_after(PLUGIN_LIMIT):
                async with trio.open_nursery() as nursery:
                    process = await nursery.start(partial(trio.run_process, self.command, **options, **pipes))
                    nursery.start_soon(collect, process.stdout, printed)
                    nursery.start_soon(collect, process.stderr, said)
                    await process.wait()
                    nursery.cancel_scope.deadline = trio.current_time() + PLUGIN_REST
        except* trio.TooSlowError:
            trouble = f"it did not end within {PLUGIN_LIMIT:g} s"
        except* (OSError, RuntimeError) as group:  # the latter for want of threads
            trouble = "; ".join(filter(None, (str(group.exceptions[0]), self.hint)))
        except* ValueError as group:
            trouble = str(group.exceptions[0])
        finally:
            _bury()
        if not trouble and process.returncode:
            trouble = f"code {process.returncode}: {' '.join(said.decode('utf-8', 'replace').split())[:300]}"
        if trouble:
            raise ValueError(trouble)
        return bytes(printed)

    def _take(self, printed: bytes) -> None:
        try:
            answer = msgspec.json.decode(printed, type=_PluginAnswer)
        except UNDECODABLE as error:
            raise ValueError(f"it did not print an ExecCredential: {error}") from error
        if (answer.kind, answer.apiVersion) != ("ExecCredential", self.version):
            kind, version = answer.kind[:100], answer.apiVersion[:100]
            raise ValueError(f"it printed {kind} of {version}, not of {self.version}")
        # First all that can be wrong, so that the last credential stays whole if this one is of no use.
        status = answer.status
        value = bearer(status.token) if status.token else None
        if status.clientCertificateData and status.clientKeyData and self.tls is not None:
            self.tls.present(status.clientCertificateData.encode(), status.clientKeyData.encode())
        elif value is None:
            raise ValueError("it gave neither a token nor a client certificate")
        self._value, end = value, status.expirationTimestamp
        if end is None or end.year == 1:  # Go's zero time, which some plugins print for none
            self._good_until = math.inf
        else:
            self._good_until = end.replace(tzinfo=end.tzinfo or UTC).timestamp()


Credentials = Fixed | Plugin


def _bury() -> None:
    """A container's first process inherits what a plugin leaves behind, and each that ends would count as a process for
    ever."""
    if os.getpid() == 1:
        with suppress(ChildProcessError):  # no plugin runs now, so none of them is waited for
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


async def _kill(process: trio.Process) -> None:
    """Kills also what it has started: a script that hangs does so in a child."""
    os.killpg(process.pid, signal.SIGKILL)


def bearer(token: str) -> str:
    if not token.strip():
        raise ValueError("it is empty")
    return header(f"Bearer {token.strip()}")


def header(value: str) -> str:
    """The value, if HTTP can carry it; else a ValueError that does not quote it, as it may be a secret."""
    if CONTROLS.search(value):
        raise ValueError("it holds line breaks or other control characters")
    return value
