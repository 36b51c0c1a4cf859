"""Who we are in the Lease: a name that is the same at every start of one container, and nobody else's (process.md 6.3).

A container that was killed leads again at once, because its own name stands in the Lease. For that no other process may
bear the name: it goes by the pod's UID and the container's name, and an abstract Unix socket keeps a second process in
the container from using it. The kernel closes that socket with the process, also after kill -9.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from csi_provisioner.logs import log

MOUNTS = Path("/proc/self/mountinfo")
# The kubelet binds the termination log from here into the container. What stands before and where it is mounted differs
# between distributions. The last part is new at every start. The UID of a static pod has no dashes.
_TERMINATION_LOG = re.compile(
    r"/pods/([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/containers/([a-z0-9-]+)/[0-9a-f]{8}$"
)
_ROOT = 3  # the field of a line that names the mounted folder or file within its file system


def sanitised(name: str) -> str:
    """As the Lease's own name is made (process.md 6.1): unchanged for years, so that versions exclude each other."""
    name = re.sub("[^a-zA-Z0-9-]", "-", name)
    return name + "X" if name.endswith("-") else name


def container(mounts: str) -> tuple[str, str] | None:
    """The pod's UID and the container's name from the text of a mountinfo; None if it names none, or more than one."""
    fields = (line.split(" ") for line in mounts.splitlines())
    found = {match.groups() for line in fields if len(line) > _ROOT and (match := _TERMINATION_LOG.search(line[_ROOT]))}
    # More than one: a pod's folder is mounted here, and any of them might be ours.
    if len(found) != 1:
        return None
    uid, name = found.pop()
    return uid, name


def stable(hostname: str, mounts: str) -> str | None:
    """The identity of this container, or None where `mounts` does not tell which one it is."""
    found = container(mounts)
    return found and sanitised(f"{hostname}-{sha256('/'.join(found).encode()).hexdigest()[:8]}")


@contextmanager
def held(hostname: str, mounts: Path = MOUNTS) -> Iterator[str]:
    """An identity that no other process has as long as this lasts."""
    try:
        identity = stable(hostname, mounts.read_text(errors="replace"))
    except OSError:
        identity = None
    with socket.socket(socket.AF_UNIX) as claim:
        if identity is None:
            log.info("No pod can be told: the identity is new at every start, and a killed leader waits out its lease")
        elif not _bound(claim, identity):
            log.warning("Another process of this container has its identity, taking a random one", identity=identity)
            identity = None
        if identity is None:
            identity = sanitised(f"{hostname}-{os.urandom(4).hex()}")
            _bound(claim, identity)
        yield identity


def _bound(claim: socket.socket, identity: str) -> bool:
    try:
        claim.bind(f"\0csi-provisioner/{identity}")
    except OSError:
        return False
    return True
