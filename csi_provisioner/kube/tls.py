"""The TLS context of the moment: whom we trust and which certificate we show. One for all clients of a process.

Certificates that others replace on disk are looked at once a minute: new authorities make a new context, a new client
certificate goes into the present one. Taken is what client-go takes and OpenSSL by itself would not: an intermediate
authority as the only anchor, a bundle of which a part cannot be read, keys of 1024 bits.
"""

import math
import os
import re
import ssl
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import trio

from csi_provisioner.kube.connection import BrokenError, Wire, reason
from csi_provisioner.kube.secure import SecureStream, is_bare, room
from csi_provisioner.logs import log

# A kubelet rotates a projected token when 80 % of its life are over: a minute is soon enough, for certificates too
FILE_AGE = 60.0
# All authorities that a system trusts have a quarter of it
LARGEST_FILE = 1 << 20
# OpenSSL's numbers of what else than the authority may be wrong with a certificate: dates and names
VERIFICATION = {9: "Expired", 10: "Expired", 62: "WrongName", 64: "WrongName"}
# And of a signature that is another authority's, of the same name
WRONG_SIGNATURE = 7
# No dash within: a certificate that was cut off must not swallow the next one
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")


def content(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """Of a file. What never ends, or has nothing to say yet (a pipe, a device), would keep everything else waiting."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found: bytes = file.read(largest + 1) or b""
    if len(found) > largest:
        raise ValueError(f"it has more than {largest >> 20} MiB")
    return found


class OtherKeyError(BrokenError):
    """Of several authorities of one name OpenSSL asks the first, whatever key has signed. Now another one is first."""


class Replaced:
    """Files that others replace: looked at once a minute, taken when they have changed.

    While they cannot be read or used, what was taken before stays, and that is told once.
    """

    def __init__(self, what: str, *paths: Path, take: Callable[..., None]) -> None:
        self._what = what
        self._paths = paths
        self._take = take
        self._taken: list[bytes] = []
        self._read_at = -math.inf
        self.trouble: Exception | None = None

    def look(self, age: float = FILE_AGE) -> None:
        """Reads the files, unless the last look is younger than `age` seconds."""
        if trio.current_time() - self._read_at >= age:
            self._read_at = trio.current_time()
            self.read()

    def read(self) -> None:
        before, self.trouble = self.trouble, None
        try:
            contents = [content(path) for path in self._paths]
            if contents != self._taken:
                self._take(*contents)
                self._taken = contents
        except (OSError, ValueError) as error:  # of two files perhaps only one has been replaced yet
            self.trouble = error
            if self._taken and str(before) != str(error):
                path = self._paths[0]
                log.warning(f"{self._what} cannot be read, going on with the last one", path=path, err=str(error))


class Tls:
    """Trusted is `authority`, or what is in `file`, which others may replace; with neither, what the system trusts.

    `source` says so to people. Its streams are of one event loop.
    """

    def __init__(
        self, authority: bytes = b"", file: Path | None = None, *, source: str = "", verify: bool = True
    ) -> None:
        self.source = source or "the system's certificate authorities"
        self._verify = verify
        self._room = room()
        self._pair: tuple[bytes, bytes] | None = None
        self._authorities: deque[bytes] = deque()
        self._file = Replaced("The certificate authority", *([file] if file else []), take=self._trust)
        self._file.read()
        if authority:
            self._trust(authority)
        elif file is None or self.trouble is not None:
            self._use(context := _context())
            context.load_default_certs()

    @property
    def trouble(self) -> Exception | None:
        """Why the file cannot be used; if it never could, the system's authorities are trusted until it can."""
        return self._file.trouble

    def current(self) -> ssl.SSLContext:
        """Another context than before if authorities have changed: connections made with that one should end."""
        self._file.look()
        return self.context

    async def secured(self, stream: trio.abc.Stream, name: str, peer: str) -> trio.abc.Stream:
        """`peer` stands for the other side in errors, `name` is what its certificate must be for."""
        secure: SecureStream | trio.SSLStream[trio.abc.Stream]
        if isinstance(stream, Wire) and is_bare(stream):
            secure = SecureStream(stream, self.context, name, self._room)
        else:
            # https_compatible: a close without TLS's farewell is an end
            secure = trio.SSLStream(stream, self.context, server_hostname=name, https_compatible=True)
        try:
            await secure.do_handshake()
        except trio.BrokenResourceError as error:
            text, kind = f"TLS with {peer} failed: {reason(error)}", "Unavailable"
            match error.__cause__:
                case ssl.SSLCertVerificationError(verify_code=code):
                    kind = VERIFICATION.get(code, "Untrusted")
                    text += f"; trusted: {self.source}" if kind == "Untrusted" else ""
                    if code == WRONG_SIGNATURE and self.others:
                        if secure.context is self.context:  # else somebody else has turned them already
                            self._authorities.rotate(-1)
                            self._use(_context(self._authorities))
                        raise OtherKeyError(text, kind) from error
                case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "PACKET_LENGTH_TOO_LONG" | "RECORD_LAYER_FAILURE"):
                    kind = "NoTLS"
            raise BrokenError(text, kind) from error
        return secure

    @property
    def others(self) -> int:
        """So many authorities may still have signed, if the first one of that name has not (`OtherKeyError`)."""
        return max(0, len(self._authorities) - 1)

    def _trust(self, authority: bytes) -> None:
        readable: deque[bytes] = deque()
        context = None
        for certificate in CERTIFICATE.findall(authority):
            with suppress(ValueError, ssl.SSLError):  # the others may do
                context = _context([decoded := b64decode(certificate)])
                readable.append(decoded)
        if context is None:
            raise ValueError("no certificate in it can be read")
        self._authorities = readable
        self._use(context if len(readable) == 1 else _context(readable))

    def _use(self, context: ssl.SSLContext) -> None:
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._pair is not None:
            _load(context, *self._pair)
        self.context = context

    def present(self, certificate: bytes, key: bytes) -> None:
        """Our certificate from now on; for a pair that does not fit an error, and the one before stays."""
        _load(_context(), certificate, key)  # first where it does no harm: it might be loaded by half
        _load(self.context, certificate, key)
        self._pair = certificate, key


def _context(authorities: Iterable[bytes] = ()) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in authorities:
        context.load_verify_locations(cadata=authority)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """The ssl module reads files only, so there is one for a moment, in memory: a pod's disk may be read-only."""
    with open(os.memfd_create("pair"), "wb") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=_no_password)


def _no_password() -> str:
    """Otherwise it would be asked for on the terminal, and all would wait for the answer."""
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")
