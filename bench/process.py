"""The provisioner under measurement, seen from outside: started by its command line, read through /proc."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Never

import trio

# Of another process's clock: all its threads', in nanoseconds, also of those that have ended (man 2 clock_getres)
_SCHED = 2


class Provisioner:
    """One running provisioner. Its log goes to a file, which is named when it ends too early."""

    def __init__(self, command: str, *, socket: Path, kubeconfig: Path, log: Path) -> None:
        self._log = log
        arguments = [part.format(sock=socket, kubeconfig=kubeconfig) for part in shlex.split(command)]
        # as installed, where the installer has made the byte code: here the first start makes it, also on a machine
        # that forbids it
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with log.open("ab") as out:
            self.started = time.time()
            self._process = subprocess.Popen(
                arguments, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment
            )

    def cpu(self) -> float:
        """Seconds of processor time so far, its own and the kernel's for it."""
        self._check()
        return time.clock_gettime(~self._process.pid << 3 | _SCHED)

    def memory(self) -> float:
        """Resident memory in MiB."""
        self._check()
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    async def watch(self) -> Never:
        """Fails when the process ends by itself."""
        while True:
            self._check()
            await trio.sleep(0.5)

    async def quiet(self, *, seconds: float = 1.5, limit: float = 120) -> None:
        """Wait until it has used next to no processor time for some seconds: events written, caches filled."""
        with trio.move_on_after(limit):
            before = self.cpu()
            while True:
                await trio.sleep(seconds)
                now = self.cpu()
                if now - before <= 0.01 * seconds:
                    return
                before = now
        raise RuntimeError(f"the provisioner does not come to rest within {limit} s")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _check(self) -> None:
        if self._process.poll() is not None:
            tail = self._log.read_text()[-2000:]
            raise RuntimeError(f"the provisioner ended with {self._process.returncode}:\n{tail}")
