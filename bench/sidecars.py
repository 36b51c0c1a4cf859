"""What a big cluster costs with `--node-deployment`: `python -m bench.sidecars [nodes] [claims]`.

The whole program once a node, beside its driver, all in this process on virtual time and against one sandbox API, which
counts: the requests of the start, of rest, of claims that the nodes race for (immediate binding, default delays), and
of claims for one node each (late binding); also how long claims wait. Each sidecar's two reads of what the cluster
serves are not counted. CPU is that of this process, so of the sidecars, their drivers and the API together.
"""

import gc
import itertools
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from csi_provisioner.kube.transport import Transport
from csi_provisioner.settings import ElectionSettings
from sandbox.api.faults import Fault
from sandbox.api.kinds import Kind
from sandbox.api.objects import Objects
from sandbox.api.requests import Journal
from sandbox.api.server import serve
from sandbox.api.storage import Change
from sandbox.driver import Driver
from tests import network
from tests.embedded import CLOCK, Cluster
from tests.nodes.deployed import CLAIM, VOLUME, config, settings
from tests.nodes.objects import DRIVER

WAVE, START, REST, SETTLED, BEAT = 100, 5.0, 600.0, 90.0, 10.0
"""Sidecars at a time, and virtual seconds: for their start, of rest (watches are opened anew), until all waits for
claims are over, and between changes of other things."""
LATENCY = 0.01
"""Seconds for a read or write of a claim; what watches show comes at once."""
IN_POD = ElectionSettings(own_namespace="default")
"""In a pod the namespace is known, so that a volume journal is kept."""


class Bench:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.drivers = cluster, list[Driver]()
        self.reviews: list[None] = []
        self.shown: Counter[str] = Counter()
        self.missing: set[str] = set()
        cluster.objects.storage.listen(self._saw)
        cluster.server.faults.on_review = lambda _asked, _agent: self.reviews.append(None)
        for verb in ("get", "update"):
            cluster.server.faults.add(Fault(verb=verb, kind=CLAIM, delay=LATENCY, times=None))

    def _saw(self, kind: Kind, change: Change) -> None:
        self.shown[kind.name] += 1
        if kind.name == CLAIM and (change.now.obj.get("status") or {}).get("phase") == "Bound":
            self.missing.discard(change.now.obj["metadata"]["name"])
            if not self.missing:
                self.bound.set()

    async def start(self, nodes: int) -> None:
        for number in range(nodes):
            made = config(f"node-{number}")
            self.drivers.append(await self.cluster.driver(made))
            self.cluster.provisioner(settings(self.cluster, made, election=IN_POD))
            if (number + 1) % WAVE == 0 or number + 1 == nodes:
                await trio.sleep(START)
                end_idle_connections()
        gc.collect()
        gc.freeze()

    async def beat(self) -> None:
        """Changes that have nothing to do with volumes: a cluster is never wholly at rest."""
        for number in itertools.count():
            self.cluster.objects.create("Lease", {"metadata": {"name": f"other-{number}"}, "spec": {}}, "default")
            await trio.sleep(BEAT)

    async def claims(self, count: int, class_name: str, *, late: bool) -> None:
        names = [f"{class_name}-{number}" for number in range(count)]
        self.cluster.storage_class(class_name, DRIVER, late=late)
        self.missing, self.bound, begun = set(names), trio.Event(), trio.current_time()
        for number, name in enumerate(names):
            self.cluster.claim(name, class_name, node=f"node-{number % len(self.drivers)}" if late else "")
        await self.bound.wait()
        print(f"  {trio.current_time() - begun:.2f} s until all {count} claims had their volumes")
        await trio.sleep(SETTLED)

    async def phase(self, title: str, act: Callable[[], Awaitable[None]], *, per: int, what: str) -> None:
        """Runs it and prints what was asked of the API and of the drivers meanwhile."""
        print(f"{title}:")
        self.cluster.server.calls.clear()
        self.reviews, self.shown = [], Counter()
        for driver in self.drivers:
            driver.calls.clear()
        begun, cpu = trio.current_time(), time.process_time()
        await act()
        cpu, minutes = time.process_time() - cpu, (trio.current_time() - begun) / 60
        found = Counter(f"{call.verb} {call.kind} {call.code}" for call in self.cluster.server.calls)
        found += Counter({"create SelfSubjectAccessReview 201": len(self.reviews)})
        for name, times in sorted(found.items()):
            print(f"  {name}: {times}, {times / per:.4g} a {what}")
        single = sum(times for name, times in found.items() if not name.startswith(("list", "watch")))
        print(f"  in all: {found.total()}, {found.total() / minutes:.4g} a minute")
        print(f"  but for lists and watches: {single}, {single / per:.4g} a {what}")
        calls = Counter(call.rpc for driver in self.drivers for call in driver.calls)
        print(f"  calls of the drivers: {dict(calls)}")
        each, shown = cpu * 1e3 / len(self.drivers), sum(self.shown[kind] for kind in (CLAIM, VOLUME))
        print(f"  CPU {cpu:.1f} s, {each:.2f} ms a sidecar, for {shown} changes of claims and volumes", flush=True)


async def measure(nodes: int, claims: int) -> None:
    network.join()
    with TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            api = partial(serve, objects=Objects(seed=1), calls=Journal(10_000_000))
            bench = Bench(Cluster(await nursery.start(api), Path(folder), nursery))
            nursery.start_soon(bench.beat)
            before = peak()
            await bench.phase(f"start of {nodes} sidecars", partial(bench.start, nodes), per=nodes, what="sidecar")
            print(f"  {(peak() - before) / nodes:.2f} MB a sidecar and its driver")
            await bench.phase(f"{REST:g} s at rest", partial(trio.sleep, REST), per=nodes, what="sidecar")
            race = partial(bench.claims, claims, "immediate", late=False)
            await bench.phase(f"{claims} claims with immediate binding", race, per=claims, what="claim")
            owned = partial(bench.claims, claims, "late", late=True)
            await bench.phase(f"{claims} claims for one node each", owned, per=claims, what="claim")
            nursery.cancel_scope.cancel()


def end_idle_connections() -> None:
    """As an API server does with those of 90 s; a process has only so many descriptors."""
    for found in gc.get_objects():
        if isinstance(found, Transport):
            found._close_idle()


def peak() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    nodes, claims = (int(given) for given in (sys.argv[1:] + ["1000", "20"][len(sys.argv) - 1 :])[:2])
    trio.run(measure, nodes, claims, clock=CLOCK)


if __name__ == "__main__":
    main()
