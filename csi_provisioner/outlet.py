"""Writes log lines in a thread, so that a reader that stops reading cannot block the event loop and cost the lease.

The buffer is bounded. When it is full the oldest lines of level 2 and above are dropped first, then the oldest others;
once the reader reads again their number is logged. Nothing here knows what a line means.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from itertools import count

# Bytes that may wait: more than ten thousand lines, and little compared with the caches.
ROOM = 4 * 1024 * 1024
# Bytes written at once: what a pipe holds.
CHUNK = 64 * 1024
# Seconds from a write that left nothing to the next: in a burst each line would wake the thread, and on a machine that
# is busy everything else waits until the thread has had both the interpreter and a processor.
PAUSE = 0.05


class Outlet:
    """Writes to one descriptor. `tell` logs how many lines were dropped; the thread calls it, and it may write here."""

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
        self._hurry = threading.Event()
        # A daemon thread: one that blocks in write() does not keep the process from ending.
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
        self._hurry.set()
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
            self._hurry.wait(0 if self._size else PAUSE)

    def _take(self) -> bytes:
        taken: list[bytes] = []
        room = CHUNK
        while room > 0 and self._size:
            # Lines of both kinds are written in the order in which they were logged.
            oldest = min((lines for lines in (self._minor, self._major) if lines), key=lambda lines: lines[0])
            taken.append(oldest.popleft()[1])
            room -= len(taken[-1])
            self._size -= len(taken[-1])
        return b"".join(taken)

    def _put(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # a process that shares the descriptor may have made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # the reader is gone for good
                return
