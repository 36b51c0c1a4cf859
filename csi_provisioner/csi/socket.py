"""What is in the way to the driver's socket, in words that `advice` knows. Asked only when connecting has failed."""

import os
import stat
from pathlib import Path


def trouble(path: str, error: OSError) -> str:
    """From the root on: the first thing that is missing, closed to this user, or not what it should be."""
    for each in (*reversed(Path(path).parents), socket := Path(path)):
        try:
            found = each.stat()
        except OSError as missing:
            return f"socket {path}: {missing.strerror}" + ("" if each == socket else f": {each}")
        if each == socket and not stat.S_ISSOCK(found.st_mode):
            return f"socket {path} is a {'folder' if stat.S_ISDIR(found.st_mode) else 'file'}, no socket"
        # root is refused nothing; for it the error below says what connecting said.
        if not os.access(each, os.W_OK if each == socket else os.X_OK):
            owner = f"owner {found.st_uid}, group {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o}"
            return f"socket {path}: {error.strerror} to uid {os.geteuid()}: {each} has {owner}"
    return f"socket {path}: {error.strerror or error}"
