"""Asks the provisioner that runs in this pod, over its local socket (`diagnostics/asked`): which there are is in
/proc/net/unix, and which one is meant follows from its flags.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from csi_provisioner import flags
from csi_provisioner.diagnostics.asked import PREFIX, peer
from csi_provisioner.model.live import Asked, Live
from csi_provisioner.settings import Settings

SOCKETS = Path("/proc/net/unix")
PROCESSES = Path("/proc")
LISTENS = "00010000"  # among the flags of a line
# Flags by which a provisioner is known: another driver, or another cluster, is somebody else's.
TELLING = ("csi-address", "kubeconfig", "master")
# Seconds: it answers from memory, so one that takes longer has more trouble than it could tell of.
LIMIT = 3.0
# Sockets that are asked, and bytes of an answer.
MOST, MOST_HEARD = 32, 1024 * 1024
NOBODY = "no provisioner that could be asked runs here"


@dataclass(frozen=True)
class _End:
    client: socket.socket
    pid: int
    user: int
    is_ours: bool
    """A process of this very program, in this container, of our own user or root: no other is taken at its word."""


@dataclass(frozen=True)
class _Heard:
    live: Live
    end: _End

    @property
    def is_certain(self) -> bool:
        return self.end.is_ours and self.live.pid == self.end.pid  # else it says what another one has told it


async def ask(known: Mapping[str, str], claim: str = "", tell: Callable[[str], None] = lambda text: None) -> Live | str:
    """What the provisioner with these flags (any of TELLING) answers, also of the claim with this UID; or why that is
    not known. Whoever is in the pod's network can take such a socket's name: the `flags` of one that is not certainly
    ours are left out, because they would be done as us. `tell` is told of such."""
    ends = _reached(tell)
    heard: list[_Heard] = []
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(_ask, end, claim, heard)
    wanted = {name: known[name] for name in TELLING if name in known}
    found = [each for each in heard if wanted.items() <= each.live.flags.items()]
    # On the host's network those of other pods are heard too.
    found = [each for each in found if each.is_certain] or found
    if not found:
        return NOBODY + (" with these flags" if heard else "")
    if len(found) > 1:
        addresses = sorted({each.live.flags.get("csi-address", "?") for each in found})
        return f"{len(found)} provisioners run here; --csi-address tells them apart: {', '.join(addresses)}"
    (one,) = found
    if one.is_certain:
        return one.live
    tell(
        f"A process of user {one.end.user} in another container, or of another program, answers as provisioner. "
        "Its flags are not taken, and what it says cannot be checked."
    )
    return msgspec.structs.replace(one.live, flags={})


def of(settings: Settings) -> dict[str, str]:
    """The flags of the provisioner that these settings are those of."""
    return {name: text for name, text in flags.in_force(settings).items() if name in TELLING}


def _names() -> Sequence[str]:
    try:
        lines = SOCKETS.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    sockets = (line.split(maxsplit=7) for line in lines)
    return [fields[7][1:] for fields in sockets
            if len(fields) == 8 and fields[3] == LISTENS and fields[7].startswith(f"@{PREFIX}")]  # fmt: skip


def _reached(tell: Callable[[str], None]) -> list[_End]:
    """Connections to those who may be asked. Nothing is sent to other users' sockets, and those who are not certainly
    ours are at most so many, so that they keep nobody from being asked who is."""
    ours: list[_End] = []
    others: list[_End] = []
    strangers: list[int] = []
    for name in _names():
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(f"\0{name}")
            pid, user = peer(client)
        except OSError:  # it ends just now, or takes no more
            client.close()
            continue
        is_trusted = user in (0, os.geteuid())
        end = _End(client, pid, user, is_trusted and _is_this_program(pid))
        if end.is_ours and len(ours) < MOST:
            ours.append(end)
        elif (is_trusted or os.geteuid() == 0) and len(others) < MOST:
            others.append(end)
        else:
            strangers.append(user)
            client.close()
    if strangers:
        users = ", ".join(map(str, sorted(set(strangers))))
        tell(f"{len(strangers)} sockets of the provisioner's name are not asked: they are those of user {users}.")
    return ours + others


def _is_this_program(pid: int) -> bool:
    """A process of another container is 0, or has its program from another file system."""
    try:
        return (PROCESSES / str(pid) / "exe").samefile(PROCESSES / "self" / "exe")
    except OSError:
        return False


async def _ask(end: _End, claim: str, heard: list[_Heard]) -> None:
    try:
        with trio.move_on_after(LIMIT), trio.socket.from_stdlib_socket(end.client) as client:
            stream = trio.SocketStream(client)
            await stream.send_all(msgspec.json.encode(Asked(claim=claim)) + b"\n")
            answer = b""
            while (more := await stream.receive_some()) and len(answer) <= MOST_HEARD:
                answer += more
            heard.append(_Heard(msgspec.json.decode(answer, type=Live), end))
    except (OSError, trio.BrokenResourceError, msgspec.MsgspecError, RecursionError):
        pass  # it ends just now, is another user's, or speaks another language
