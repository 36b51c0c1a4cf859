"""Writes the log's lines in a thread of its own: a reader that stops reading must not stop the loop and cost the lease.

What waits is bounded. When it is too much the oldest lines of level 2 and above go first, then the oldest of the rest,
and how many went is told once the reader reads again. Nothing here knows what a line means.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from itertools import count

ROOM = 4 * 1024 * 1024
"""Bytes that may wait: ten thousand lines and more, and little beside the caches."""
CHUNK = 64 * 1024
"""Bytes taken at once, as many as a pipe holds."""


class Outlet:
    """For one descriptor. `tell` logs how many lines had to go; it is called from the thread and may write here."""

    def __init__(self, descriptor: int, tell: Callable[[int], None], *, room: int = ROOM) -> None:
        self._descriptor = descriptor
        self._tell = tell
        self._room = room
        self._changed = threading.Condition()
        self._numbers = count()
        self._minor: deque[tuple[int, bytes]] = deque()
        self._major: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._dropped = 0
        self._busy = False
        # A daemon: one that hangs in its write must not keep the process from ending.
        threading.Thread(target=self._write_forever, name="log", daemon=True).start()

    def write(self, line: str, *, minor: bool) -> None:
        """Never waits for the reader. `minor` lines are dropped before others."""
        data = line.encode("utf-8", "backslashreplace")
        with self._changed:
            (self._minor if minor else self._major).append((next(self._numbers), data))
            self._size += len(data)
            while self._size > self._room:
                self._size -= len((self._minor or self._major).popleft()[1])
                self._dropped += 1
            self._changed.notify_all()

    def flush(self, limit: float) -> None:
        """Returns when all is written, or after `limit` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._size or self._dropped or self._busy), limit)

    def _write_forever(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._size or self._dropped)
                self._busy = True
                chunk = self._take()
                dropped, self._dropped = self._dropped, 0
            self._put(chunk)
            if dropped:
                self._tell(dropped)

    def _take(self) -> bytes:
        taken: list[bytes] = []
        room = CHUNK
        while room > 0 and self._size:
            oldest = min((lines for lines in (self._minor, self._major) if lines), key=lambda lines: lines[0])
            taken.append(oldest.popleft()[1])
            room -= len(taken[-1])
            self._size -= len(taken[-1])
        return b"".join(taken)

    def _put(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process that has it too may have made it so
                select.select([], [self._descriptor], [])
            except OSError:  # nobody will ever read it
                return
