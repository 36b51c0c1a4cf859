"""What is in the way to the driver's socket, in words that `advice` knows. Asked only when connecting has failed."""

import os
import stat
from pathlib import Path

from csi_provisioner.advice import advice
from csi_provisioner.logs import log


def told(path: str, error: OSError, before: str) -> str:
    """What is in the way; people are told unless they were told `before`."""
    text = trouble(path, error)
    if text != before:
        log.warning("No connection to the CSI driver yet", err=text, advice=advice(text))
    return text


def trouble(path: str, error: OSError) -> str:
    """From the root on: the first thing that is missing, closed to this user, or not what it should be."""
    for each in (*reversed(Path(path).parents), socket := Path(path)):
        try:
            found = each.stat()
        except OSError as missing:
            return f"socket {path}: {missing.strerror}" + ("" if each == socket else f": {each}")
        if each == socket and not stat.S_ISSOCK(found.st_mode):
            return f"socket {path} is a {'folder' if stat.S_ISDIR(found.st_mode) else 'file'}, no socket"
        if not os.access(each, os.W_OK if each == socket else os.X_OK):
            owner = f"owner {found.st_uid}, group {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o}"
            return f"socket {path}: {error.strerror} to uid {os.geteuid()}: {each} has {owner}"
    return f"socket {path}: {error.strerror or error}"
