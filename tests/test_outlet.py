"""Lines that nobody reads hold up nobody, and the last ones are not lost to whoever does."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from csi_provisioner.outlet import CHUNK, Outlet

LINE = "x" * 900 + "\n"


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    yield reads, writes
    os.close(reads)  # first: a thread that still hangs in its write gets an error
    os.close(writes)


def read(descriptor: int, until: str) -> str:
    found = b""
    while not re.search(until.encode(), found):
        assert select.select([descriptor], [], [], 10)[0], found[-200:]
        found += os.read(descriptor, CHUNK)
    return found.decode()


def stuck(writes: int, *, room: int) -> Outlet:
    """One that hangs in its write, the pipe being full: what comes from now on waits for the reader."""
    blocking = os.get_blocking(writes)
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, b"\n" * 512)
    os.set_blocking(writes, blocking)
    outlet = Outlet(writes, lambda lines: outlet.write(f"dropped {lines}\n", minor=False), room=room)
    outlet.write("first\n", minor=False)
    while outlet._size:
        time.sleep(0.001)
    return outlet


def test_lines_come_whole_and_in_their_order() -> None:
    lines = [f"line {number} größer \udcff\n" for number in range(50)]
    with pipe() as (reads, writes):
        outlet = Outlet(writes, lambda lines: None)
        for number, line in enumerate(lines):
            outlet.write(line, minor=number % 3 == 0)
        assert read(reads, "line 49.*\n") == "".join(lines).replace("\udcff", "\\udcff")


def test_a_reader_that_stops_reading_costs_the_oldest_lines_of_level_2_first() -> None:
    with pipe() as (reads, writes):
        outlet = stuck(writes, room=10_000)
        for number in range(10):
            outlet.write(f"major {number} {LINE}", minor=False)
            outlet.write(f"minor {number} {LINE}", minor=True)
        written = read(reads, r"dropped \d+\n")
    kept = [("major", str(number)) for number in range(10)] + [("minor", "9")]
    assert re.findall(r"(major|minor) (\d)", written) == kept
    assert written.endswith("\ndropped 9\n")


def test_then_the_oldest_of_all() -> None:
    with pipe() as (reads, writes):
        outlet = stuck(writes, room=10_000)
        for number in range(30):
            outlet.write(f"major {number:02} {LINE}", minor=False)
        written = read(reads, r"dropped \d+\n")
    assert re.findall(r"major (\d+)", written) == [str(number) for number in range(20, 30)]
    assert written.endswith("\ndropped 20\n")


def test_a_flush_waits_for_the_reader_but_not_for_ever() -> None:
    with pipe() as (reads, writes):
        outlet = stuck(writes, room=10_000)
        began = time.monotonic()
        outlet.flush(0.1)
        assert 0.1 <= time.monotonic() - began < 5
        read(reads, "first\n")
        outlet.write("last\n", minor=False)
        outlet.flush(10)
        assert os.read(reads, CHUNK) == b"last\n"


def test_a_descriptor_that_does_not_wait_loses_nothing() -> None:
    with pipe() as (reads, writes):
        os.set_blocking(writes, False)
        outlet = stuck(writes, room=10_000)
        outlet.write("last\n", minor=False)
        assert read(reads, "last\n").lstrip() == "first\nlast\n"


def test_a_reader_that_is_gone_is_no_error() -> None:
    gone, broken = os.pipe()
    os.close(gone)
    outlet = Outlet(broken, lambda lines: None)
    began = time.monotonic()
    for _ in range(3):
        outlet.write("lost\n", minor=False)
        outlet.flush(10)
    assert time.monotonic() - began < 5
    os.close(broken)


PROGRAM = """
import sys
from csi_provisioner import logs
from csi_provisioner.logs import configure, log
from csi_provisioner.settings import LogSettings
logs.LAST_LINES = 0.2
configure(LogSettings(verbosity=2))
log.write_in_background()
for number in range(3_000):
    log.v(2, "Detail", number=number)
log.error("Last words")
log.flush()
sys.exit(3)
"""


@pytest.mark.parametrize("is_read", [True, False])
def test_a_process_ends_with_its_last_words_said_or_without_a_reader(is_read: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True) as process:
        said = process.communicate(timeout=30)[1] if is_read else ""
        assert process.wait(timeout=30) == 3
    if is_read:
        assert said.count("Detail") == 3_000
        assert said.splitlines()[-1].endswith('"Last words"')
