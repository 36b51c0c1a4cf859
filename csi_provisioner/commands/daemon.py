"""Asks the provisioner that runs in this pod, over its local socket (`diagnostics/asked`): which there are is in
/proc/net/unix, and which one is meant follows from its flags.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from csi_provisioner import flags
from csi_provisioner.diagnostics.asked import PREFIX, peer
from csi_provisioner.model.live import Asked, Live
from csi_provisioner.settings import Settings

SOCKETS = Path("/proc/net/unix")
LISTENS = "00010000"  # among the flags of a line
# Flags by which a provisioner is known: another driver, or another cluster, is somebody else's.
TELLING = ("csi-address", "kubeconfig", "master")
# Seconds: it answers from memory, so one that takes longer has more trouble than it could tell of.
LIMIT = 3.0
# Sockets that are asked, and bytes of an answer.
MOST, MOST_HEARD = 32, 1024 * 1024


@dataclass(frozen=True)
class _Heard:
    live: Live
    pid: int
    trusted: bool


async def ask(known: Mapping[str, str], claim: str = "") -> Live | str:
    """What the provisioner with these flags (any of TELLING) answers, also of the claim with this UID; or why that is
    not known. The `flags` of one that runs as another user, which only root can ask, are left out: they would be done
    as root."""
    heard: list[_Heard] = []
    async with trio.open_nursery() as nursery:
        for name in _names()[:MOST]:
            nursery.start_soon(_ask, name, claim, heard)
    wanted = {name: known[name] for name in TELLING if name in known}
    found = [each for each in heard if wanted.items() <= each.live.flags.items()]
    # On the host's network those of other pods are heard too; of another container's process no id is told.
    found = [each for each in found if each.pid] or found
    if not found:
        return "no provisioner that could be asked runs here" + (" with these flags" if heard else "")
    if len(found) > 1:
        addresses = sorted({each.live.flags.get("csi-address", "?") for each in found})
        return f"{len(found)} provisioners run here; --csi-address tells them apart: {', '.join(addresses)}"
    return found[0].live if found[0].trusted else msgspec.structs.replace(found[0].live, flags={})


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


async def _ask(name: str, claim: str, heard: list[_Heard]) -> None:
    try:
        with trio.move_on_after(LIMIT), trio.socket.socket(socket.AF_UNIX) as client:
            await client.connect(f"\0{name}")
            stream = trio.SocketStream(client)
            await stream.send_all(msgspec.json.encode(Asked(claim=claim)) + b"\n")
            answer = b""
            while (more := await stream.receive_some()) and len(answer) <= MOST_HEARD:
                answer += more
            live = msgspec.json.decode(answer, type=Live)
            pid, user = peer(client)
            heard.append(_Heard(live, pid, user in (0, os.geteuid())))
    except (OSError, trio.BrokenResourceError, msgspec.MsgspecError, RecursionError):
        pass  # it ends just now, is another user's, or speaks another language
