"""What other drivers' claims and volumes cost: a first list of them, and each change, beside an API server of recorded
bytes: a real one on the same cores does not make 500 changes a second.

Processor time, the kernel's with it; builds in turn as in `against`. Parts are judged by the minimum of many rounds,
beside which the median is printed; what a list costs is the difference of two starts, so that it takes twenty.
"""

import signal
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.against import FLAGS
from bench.builds import Build
from bench.driver import Driver
from bench.process import Provisioner

OBJECTS = 10_000
RATES = (50, 500, 2000)
# Seconds at each rate; what a process costs at rest is taken off.
LONG, REST, SETTLING = 15.0, 5.0, 1.0


class Canned:
    def __init__(self, kubeconfig: Path, objects: int) -> None:
        self.kubeconfig = kubeconfig
        command = [sys.executable, "-m", "bench.canned", str(kubeconfig), str(objects)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout
        self._out.readline()

    def rate(self, changes: float) -> float:
        """From now on so many a second; how many there were so far."""
        self._in.write(f"{changes}\n")
        self._in.flush()
        return float(self._out.readline())

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@asynccontextmanager
async def running(build: Build, driver: Driver, api: Canned, folder: Path) -> AsyncIterator[Provisioner]:
    log = folder / "provisioner.log"
    provisioner = Provisioner(build.command(FLAGS), socket=driver.socket, kubeconfig=api.kubeconfig, log=log)
    try:
        await provisioner.quiet()
        yield provisioner
    finally:
        await trio.to_thread.run_sync(provisioner.stop)


async def listed(build: Build, driver: Driver, empty: Canned, full: Canned, folder: Path) -> dict[str, float]:
    spent = []
    for api in (empty, full):
        async with running(build, driver, api, folder) as provisioner:
            spent.append((provisioner.cpu(), provisioner.memory()))
    (nothing, idle), (everything, memory) = spent
    return {"start s": nothing, "start and list s": everything, "idle MiB": idle, "MiB": memory}


async def churned(build: Build, driver: Driver, _: Canned, full: Canned, folder: Path) -> dict[str, float]:
    figures = {}
    async with running(build, driver, full, folder) as provisioner:
        begun = provisioner.cpu()
        await trio.sleep(REST)
        at_rest = (provisioner.cpu() - begun) / REST
        for rate in RATES:
            full.rate(rate)
            await trio.sleep(SETTLING)
            cpu, told = provisioner.cpu(), full.rate(rate)
            await trio.sleep(LONG)
            cpu, told = provisioner.cpu() - cpu - at_rest * LONG, full.rate(0) - told
            figures[f"ms at {rate}/s"] = 1000 * cpu / told
    return figures


async def compare(what: str, builds: list[Build], pairs: int, folder: Path) -> None:
    measured = {"list": listed, "churn": churned}[what]
    driver = Driver(folder / "csi.sock")
    empty, full = Canned(folder / "empty", 0), Canned(folder / "full", OBJECTS)
    found: dict[str, dict[str, list[float]]] = {build.name: {} for build in builds}
    try:
        for number in range(pairs):
            for build in builds if number % 2 else reversed(builds):
                for name, value in (await measured(build, driver, empty, full, folder)).items():
                    found[build.name].setdefault(name, []).append(value)
    finally:
        for process in (driver, empty, full):
            process.stop()
    print(f"{OBJECTS} claims and as many volumes, {pairs} times")
    for word, of_many in (("least", min), ("median", statistics.median)):
        figures = {
            build.name: {name: of_many(values) for name, values in found[build.name].items()} for build in builds
        }
        for each in figures.values() if what == "list" else ():
            each["list s"] = each["start and list s"] - each["start s"]
        for name in figures["here"]:
            values = [figures[build.name][name] for build in builds]
            ratio = f"  {values[-1] / values[0]:.3f}" if len(values) > 1 else ""
            print(f"{word:>6} {name:>16}  {' -> '.join(f'{value:.4g}' for value in values)}{ratio}", flush=True)
