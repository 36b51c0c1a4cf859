"""`python -m bench`: measures a provisioner against the sandbox's API and a real control plane, and prints tables.

The provisioner, the driver and the API server are processes of their own; on a machine with few processors they share
them, and rates say as much about the API server as about the provisioner. Processor time and memory do not depend on
that.
"""

import argparse
import shlex
import signal
import sys
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from bench import against, builds, call, foreign, start
from bench.api import Api, Sight
from bench.clusters import Cluster, real, sandbox
from bench.driver import NAME, Driver
from bench.measure import OTHER, Backlog, Measure, storage_class

CLUSTERS = {"sandbox": sandbox, "real": real}
COMMAND = shlex.join([sys.executable, "-m", "csi_provisioner"]) + " --csi-address={sock} --kubeconfig={kubeconfig}"
COLUMNS = {
    "claims": "{0.claims}",
    "first call s": "{0.first_call:.2f}",
    "create/s": "{0.create_rate:.0f}",
    "CPU ms": "{0.create_cpu:.2f}",
    "+ events": "{0.create_cpu_with_events:.2f}",
    "CSI calls": "{0.create_calls:.2f}",
    "RSS MiB": "{0.memory:.0f}",
    "delete/s": "{0.delete_rate:.0f}",
    "delete CPU ms": "{0.delete_cpu:.2f}",
    "delete CSI calls": "{0.delete_calls:.2f}",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--cluster", choices=CLUSTERS, action="append", help="only this one (default: both)")
    parser.add_argument("--claims", type=int, action="append", help="size of a backlog (default: 500 and 2000)")
    parser.add_argument("--others", type=int, default=0, help="memory with so many claims and PVs of another driver")
    parser.add_argument("--requests", type=int, default=100, help="count API requests with so many claims; 0: do not")
    parser.add_argument("--profile", action="store_true", help="only say where the time goes, for the largest backlog")
    parser.add_argument("--command", default=COMMAND, help="another provisioner; {sock} and {kubeconfig} are replaced")
    parser.add_argument("--volume-journal", choices=["on", "off"], default="on", help="of our own provisioner")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that the driver takes for a volume")
    parser.add_argument("--against", metavar="COMMIT", help="compare with this commit, in turn, on the control plane")
    parser.add_argument("--against-flags", default="", metavar="FLAGS", help="more flags for that one")
    parser.add_argument("--flags", default="", help="more flags for this tree's own")
    parser.add_argument("--pairs", type=int, default=9)
    what = "only this: start, until probes are answered, with --against until the driver is first asked; "
    what += "call, of gRPC; list and churn, of others' claims; memory of our own, once they are bound, with --against"
    parser.add_argument("what", nargs="?", choices=["start", "call", "list", "churn", "memory"], help=what)
    options = parser.parse_args()
    if options.what == "call" or (options.what == "start" and not options.against):
        return {"start": start, "call": call}[options.what].main()
    options.round = against.one_round
    if options.what == "memory":
        options.round, options.claims = against.memory_round, options.claims or [2000]
        options.cluster, options.against = options.cluster or ["sandbox"], options.against or "HEAD"
    elif options.what == "start":
        options.round, options.cluster = against.start_round, options.cluster or ["real"]
    elif options.what:
        given = [builds.Build(options.against, builds.commit(options.against))] if options.against else []
        given.append(builds.Build("here", builds.here(), options.flags))
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            return trio.run(foreign.compare, options.what, given, options.pairs, Path(folder))
    if options.against:
        options.cluster, options.claims = options.cluster or ["real"], options.claims or [1000]
        there = builds.Build(options.against, builds.commit(options.against), options.against_flags)
        options.builds = (there, builds.Build("here", builds.here(), options.flags))
    options.claims = options.claims or [500, 2000]
    if options.command == COMMAND:
        options.command += f" --leader-election-namespace=default --volume-journal={options.volume_journal}"
    # as Ctrl-C, which Trio knows how to take: the processes started here are ended either way
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for name in options.cluster or CLUSTERS:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                trio.run(_run, CLUSTERS[name](Path(folder)), options, Path(folder))
    except* KeyboardInterrupt:
        sys.exit("interrupted")


async def _run(opening: AbstractAsyncContextManager[Cluster], options: argparse.Namespace, folder: Path) -> None:
    driver = Driver(folder / "csi.sock", options.delay)
    try:
        async with opening as cluster, Api(cluster.admin) as api, trio.open_nursery() as nursery:
            for body in (storage_class("bench", NAME), storage_class("other", OTHER)):
                await api.request("POST", "/apis/storage.k8s.io/v1/storageclasses", body)
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}
            await api.request("POST", "/api/v1/namespaces", namespace)
            sight = Sight(NAME)
            await nursery.start(api.follow, sight)
            measure = Measure(cluster, api, driver, sight, options.command, folder)
            if options.against:
                for claims in options.claims:
                    await against.compare(
                        measure, *options.builds, pairs=options.pairs, claims=claims, measured=options.round
                    )
            elif options.profile:
                stats = await measure.profile(max(options.claims))
                stats.sort_stats("tottime").print_stats(50)
                stats.sort_stats("cumulative").print_stats("csi_provisioner|lightkube|grpclib|betterproto2", 60)
            else:
                await _tables(measure, cluster.name, options)
            nursery.cancel_scope.cancel()
    finally:
        driver.stop()


async def _tables(measure: Measure, name: str, options: argparse.Namespace) -> None:
    print(f"\n## {name}\n", flush=True)
    idle = await measure.idle()
    await measure.backlog(100, idle)  # the first load after a start is not like the others
    rows = [await measure.backlog(claims, idle) for claims in options.claims]
    print(f"idle: {idle.memory:.0f} MiB, {idle.cpu:.2f} s of CPU to start\n")
    _print_backlogs(rows)
    if options.others:
        memory = await measure.memory_with_others(options.others)
        print(f"\nwith {options.others} claims and {options.others} PVs of another driver: {memory:.0f} MiB")
    if options.requests:
        created, deleted = await measure.requests(options.requests)
        for what, requests in (("created", created), ("deleted", deleted)):
            each = {name: f"{count / options.requests:.2f}" for name, count in sorted(requests.items())}
            print(f"\nAPI requests per claim {what}: " + ", ".join(f"{name} {count}" for name, count in each.items()))


def _print_backlogs(rows: list[Backlog]) -> None:
    table = [list(COLUMNS), *([cell.format(row) for cell in COLUMNS.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)), flush=True)


if __name__ == "__main__":
    main()
