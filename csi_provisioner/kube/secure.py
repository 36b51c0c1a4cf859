"""TLS straight on the socket: OpenSSL reads and writes it, and Trio only waits for it.

`trio.SSLStream` copies every record through two buffers in memory and passes two checkpoints and two locks for each;
that is half of what a request costs. Here a request is one write, and its answer one wait and one read.
"""

import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from csi_provisioner.kube.connection import LARGEST_BATCH, Wire

R = TypeVar("R")


def room() -> memoryview:
    """For what is read, of all streams of one event loop."""
    return memoryview(bytearray(LARGEST_BATCH))


class SecureStream(trio.abc.Stream):
    """A client's TLS on the wire's socket, which the wire goes on closing. One reader and one writer at a time.

    A close without TLS's farewell is an end: whether the answer was whole is the parser's word. All errors are
    `trio.BrokenResourceError`, from OpenSSL's or the socket's. What is read is in `into` until the next checkpoint: a
    piece of memory for each page of a list would be asked from the system and given back to it every time.
    """

    def __init__(self, wire: Wire, context: ssl.SSLContext, name: str, into: memoryview) -> None:
        self.context = context
        self._wire = wire
        self._name = name
        self._into = into

    async def do_handshake(self) -> None:
        self._socket = await self._done(self._wrapped)
        await self._done(self._socket.do_handshake)

    def _wrapped(self) -> ssl.SSLSocket:
        bare = self._wire.bare = self._wire.detached()
        bare.getpeername()  # an OSError if the peer has gone already: the ssl module would leave the socket open
        self._wire.bare = secure = self.context.wrap_socket(
            bare, server_hostname=self._name, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        return secure

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._wire.begun()
        rest = memoryview(data)
        while rest:
            rest = rest[await self._done(self._socket.send, rest) :]

    async def receive_some(self, max_bytes: int | None = None) -> bytes | memoryview:  # type: ignore[override]
        """One record, of at most 16 KiB. With `max_bytes` all that has come, up to `LARGEST_BATCH`: a server that tells
        of many changes sends each in a record of its own. Valid until the next checkpoint."""
        # An answer has never come with its request, and a read for nothing costs as much as the wait. It is also a
        # checkpoint: a server that never pauses must not keep everybody else waiting.
        try:
            if self._socket.pending() or self._wire.ended:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._socket)
        except (OSError, ValueError) as error:
            raise trio.BrokenResourceError from error
        try:
            size = await self._done(self._socket.recv_into, self._into)
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                return b""
            raise
        return self._into[: self._more(size) if max_bytes and size else size]

    def _more(self, size: int) -> int:
        try:
            while more := self._socket.recv_into(self._into[size:]):  # 0 also where there is no more room
                size += more
            self._wire.ended = size < len(self._into)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            self._wire.ended = True
        except OSError:  # nothing more has come yet, or what breaks the connection, which the next read meets again
            pass
        return size

    async def _done(self, step: Callable[..., R], *arguments: Any) -> R:
        """The step's result, once the socket lets it be done."""
        while True:
            try:
                return step(*arguments)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._socket)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._socket)
            except (OSError, ValueError) as error:
                raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._socket)

    async def aclose(self) -> None:
        self._wire.close()
        await trio.lowlevel.checkpoint()


def is_bare(stream: object) -> bool:
    """Whether it is a socket's: TLS within the TLS of a proxy has none of its own."""
    return isinstance(stream, Wire) and isinstance(stream.stream, trio.SocketStream)
