"""What is measured, phase by phase. Most phases leave the cluster as they found it: no claims, no volumes."""

import os
import pstats
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from bench.api import Api, Sight
from bench.clusters import Cluster, Requests
from bench.driver import NAME, Driver
from bench.process import Provisioner

CLAIMS = "/api/v1/namespaces/bench/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
OTHER = "other.csi.example.com"
# What the volume controller writes into a claim that it has seen
SEEN = ("volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner")


@dataclass(frozen=True)
class Idle:
    cpu: float
    memory: float


@dataclass(frozen=True)
class Backlog:
    """One backlog created and deleted again. Times in seconds, processor time in ms per claim, memory in MiB."""

    claims: int
    first_call: float
    create_rate: float
    create_cpu: float
    create_cpu_with_events: float
    create_calls: float
    memory: float
    delete_rate: float
    delete_cpu: float
    delete_calls: float


def storage_class(name: str, provisioner: str) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def claim(number: int, class_: str, provisioner: str, volume: str = "") -> dict[str, Any]:
    """A claim that has been seen by the volume controller, which binds too slowly to make a backlog by itself."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": class_,
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": f"{class_}-{number:05}",
            "namespace": "bench",
            "annotations": dict.fromkeys(SEEN, provisioner),
        },
        "spec": spec | ({"volumeName": volume} if volume else {}),
    }


def foreign_volume(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"other-{number:05}",
            "annotations": {"pv.kubernetes.io/provisioned-by": OTHER},
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
        },
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "other",
            "csi": {
                "driver": OTHER,
                "volumeHandle": f"id-{number}",
                "fsType": "ext4",
                "volumeAttributes": {"storage.kubernetes.io/csiProvisionerIdentity": f"1700000000000-1234-{OTHER}"},
            },
        },
    }


def _idle() -> float:
    """Seconds for which the machine's processors have had nothing to do."""
    return int(Path("/proc/stat").read_text().split(maxsplit=5)[4]) / os.sysconf("SC_CLK_TCK")


class Measure:
    """The phases against one cluster. `command` starts a provisioner; in it, {sock} and {kubeconfig} are replaced."""

    def __init__(self, cluster: Cluster, api: Api, driver: Driver, sight: Sight, command: str, folder: Path) -> None:
        self._cluster = cluster
        self._api = api
        self._driver = driver
        self._sight = sight
        self._command = command
        self._folder = folder

    async def idle(self) -> Idle:
        """What a start costs when there is nothing to do; this is taken off what the claims cost."""
        starts = []
        for _ in range(3):  # the first one compiles what is not compiled yet, and any may meet a busy machine
            async with self.running() as provisioner:
                await provisioner.quiet()
                starts.append(Idle(provisioner.cpu(), provisioner.memory()))
        return min(starts, key=lambda idle: idle.cpu)

    async def backlog(self, claims: int, idle: Idle) -> Backlog:
        await self.create_claims(claims)
        await self.rest()
        async with self.running() as provisioner:
            written = await self.volumes_written(claims)
            cpu = provisioner.cpu() - idle.cpu
            await provisioner.quiet()
            cpu_with_events = provisioner.cpu() - idle.cpu
            memory, started = provisioner.memory(), provisioner.started
        creation = self._driver.stats()
        took = written[-1] - creation["first"]["CreateVolume"]

        await self.all_bound(claims)
        await self.release(claims)
        async with self.running() as provisioner:
            await self.all_gone()
            await provisioner.quiet()
            deletion_cpu = provisioner.cpu() - idle.cpu
        deletion = self._driver.stats()
        deletion_took = self._sight.gone[-1] - deletion["first"]["DeleteVolume"]
        return Backlog(
            claims=claims,
            first_call=creation["first"]["CreateVolume"] - started,
            create_rate=claims / took,
            create_cpu=1000 * cpu / claims,
            create_cpu_with_events=1000 * cpu_with_events / claims,
            create_calls=creation["counts"]["CreateVolume"] / claims,
            memory=memory,
            delete_rate=claims / deletion_took,
            delete_cpu=1000 * deletion_cpu / claims,
            delete_calls=deletion["counts"]["DeleteVolume"] / claims,
        )

    async def memory_with_others(self, objects: int) -> float:
        """Resident memory with so many bound claims and volumes of another driver in the cluster."""
        self._cluster.pause_controllers()
        try:
            await self._api.create(VOLUMES, (foreign_volume(number) for number in range(objects)))
            claims = (claim(number, "other", OTHER, volume=f"other-{number:05}") for number in range(objects))
            await self._api.create(CLAIMS, claims)
            async with self.running() as provisioner:
                await provisioner.quiet(seconds=3)
                return provisioner.memory()
        finally:
            self._cluster.resume_controllers()

    async def requests(self, claims: int) -> tuple[Requests, Requests]:
        """The provisioner's requests for so many claims created, then deleted; a start's own are taken off."""
        self._cluster.count_requests()
        self._cluster.requests()
        async with self.running() as provisioner:
            await provisioner.quiet()
        at_start = self._cluster.requests()
        await self.create_claims(claims)
        async with self.running() as provisioner:
            await self.all_bound(claims)
            await provisioner.quiet()
        created = self._cluster.requests()
        await self._api.remove(CLAIMS)
        await self._until(lambda: self._sight.count("Released") == claims, "all volumes released")
        async with self.running() as provisioner:
            await self.all_gone()
            await provisioner.quiet()
        self._driver.stats()
        return created - at_start, self._cluster.requests() - at_start

    async def profile(self, claims: int) -> pstats.Stats:
        """Where the time of creating a backlog goes, by cProfile, which itself doubles it."""
        out = self._folder / "profile.out"
        module = shlex.join([sys.executable, "-m", "csi_provisioner"])
        if not self._command.startswith(module):
            raise RuntimeError("only this provisioner can be profiled")
        profiled = self._command.replace(module, f"{sys.executable} -m cProfile -o {out} -m csi_provisioner", 1)
        await self.create_claims(claims)
        async with self.running(profiled) as provisioner:
            await self.all_bound(claims)
            await provisioner.quiet()
        return pstats.Stats(str(out))

    async def first_call_at_rest(self, command: str, claims: int) -> float:
        """Seconds from exec to the first CreateVolume, which the driver does not answer; then all of it is killed. The
        claims are made once."""
        if not await self._api.names(CLAIMS):
            await self.create_claims(claims)
            await self.rest()
        (socket := self._folder / "slow.sock").unlink(missing_ok=True)
        driver = Driver(socket, delay=600)
        try:
            provisioner = Provisioner(
                command,
                socket=driver.socket,
                kubeconfig=self._cluster.provisioner,
                log=self._folder / "provisioner.log",
            )
            await trio.sleep(1.5)
            provisioner.kill()
            return float(driver.stats()["first"]["CreateVolume"]) - provisioner.started
        finally:
            driver.kill()
            await self._api.remove(LEASES)
            await self.rest()

    @staticmethod
    async def rest() -> None:
        """Until the machine has been idle, but for a tenth of one processor, for two seconds. The controllers write of
        each claim that is made: some ten a second, with more than one processor."""
        with trio.move_on_after(600):
            while True:
                before = _idle()
                await trio.sleep(2)
                if _idle() - before > 2 * (os.cpu_count() or 1) - 0.2:
                    return
        raise RuntimeError("not within 600 s: the machine at rest; rates and first calls need one that is")

    async def create_claims(self, claims: int) -> None:
        self._driver.stats()
        self._sight.written.clear()
        await self._api.create(CLAIMS, (claim(number, "bench", NAME) for number in range(claims)))

    async def volumes_written(self, claims: int) -> list[float]:
        """When each of the backlog's volumes was first seen."""
        await self._until(lambda: len(self._sight.written) == claims, "all volumes written")
        return self._sight.written

    async def all_bound(self, claims: int) -> None:
        await self._until(lambda: self._sight.count("Bound") == claims, "all volumes bound")

    async def release(self, claims: int) -> None:
        """Delete the claims, so that every volume waits for its deletion."""
        await self._api.remove(CLAIMS)
        await self._until(lambda: self._sight.count("Released") == claims, "all volumes released")

    async def all_gone(self) -> None:
        await self._until(lambda: not self._sight.phases, "all volumes gone")

    def first_call(self, rpc: str) -> float:
        """When the driver was first asked this since the last time it was looked at."""
        return float(self._driver.stats()["first"][rpc])

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        print(f"  waiting: {what}", file=sys.stderr, flush=True)
        await self._sight.until(holds, what, 600)

    @asynccontextmanager
    async def running(self, command: str = "") -> AsyncIterator[Provisioner]:
        provisioner = Provisioner(
            command or self._command,
            socket=self._driver.socket,
            kubeconfig=self._cluster.provisioner,
            log=self._folder / "provisioner.log",
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(provisioner.watch)
                yield provisioner
                nursery.cancel_scope.cancel()
        finally:
            await trio.to_thread.run_sync(provisioner.stop)
