"""The local socket at which a provisioner answers its own commands: one question and one answer a connection.

An abstract Unix socket in the pod's network, not a path of the HTTP endpoint: a mesh's proxy makes strangers look like
local clients there, and here the kernel says who asks. It goes with the process, also after kill -9. Only the
process's own user and root are answered. Whatever a client does ends at most its own connection.
"""

import os
import socket
import struct
from collections.abc import Callable

import msgspec
import trio

from csi_provisioner.logs import log
from csi_provisioner.model.live import Asked, Live

PREFIX = "csi-provisioner-ask/"
# People ask, and a command asks once or twice.
CONNECTIONS = 8
# Bytes of a question: one UID and its frame.
MOST_ASKED = 4096
# Seconds for a whole connection.
TIME = 5.0
# Pause after a failed accept (no descriptors, no memory).
ACCEPT_PAUSE = 1.0


async def serve(name: str, answer: Callable[[Asked], Live]) -> None:
    """Until cancelled. Without a socket the process works all the same."""
    try:
        listener = _bound(name)
    except OSError as error:
        log.warning("Commands in this pod are not answered: the local socket cannot be made", err=error)
        return
    room, strangers = trio.Semaphore(CONNECTIONS), set[int]()
    with trio.socket.from_stdlib_socket(listener) as accepting:
        async with trio.open_nursery() as nursery:
            while True:
                await room.acquire()
                try:
                    client, _ = await accepting.accept()
                except OSError as error:
                    log.v(2, "A command cannot be accepted", err=error)
                    room.release()
                    await trio.sleep(ACCEPT_PAUSE)
                else:
                    nursery.start_soon(_talk, client, answer, room, strangers)


def peer(client: trio.socket.SocketType | socket.socket) -> tuple[int, int]:
    """Process id, 0 where it is in a container of its own, and user of the other end."""
    pid, user, _group = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, user


def _bound(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        try:
            listener.bind(f"\0{PREFIX}{name}")
        except OSError:
            # Containers of one pod share its network and may have the same process ids.
            listener.bind(f"\0{PREFIX}{name}-{os.urandom(4).hex()}")
        listener.listen(CONNECTIONS)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


async def _talk(
    client: trio.socket.SocketType, answer: Callable[[Asked], Live], room: trio.Semaphore, strangers: set[int]
) -> None:
    """`strangers`: other users who were told of; once each, so that nobody fills our log."""
    try:
        with trio.move_on_after(TIME):
            _, user = peer(client)
            if user in (0, os.geteuid()):
                stream = trio.SocketStream(client)
                question = await _question(stream)
                await stream.send_all(msgspec.json.encode(answer(msgspec.json.decode(question, type=Asked))))
            elif user not in strangers:
                strangers.add(user)
                log.warning("A command of another user is not answered", user=user)
    except (OSError, trio.BrokenResourceError, msgspec.MsgspecError) as error:
        log.v(3, "A command was not answered", err=error)  # it has gone, or was none of ours
    except Exception:
        log.exception("A defect kept a command from its answer; the others go on")
    finally:
        client.close()
        room.release()


async def _question(stream: trio.SocketStream) -> bytes:
    """Up to the end of the line, or of what may be asked."""
    question = b""
    while b"\n" not in question and len(question) <= MOST_ASKED:
        if not (more := await stream.receive_some(MOST_ASKED)):
            break
        question += more
    return question[:MOST_ASKED]
