"""Two builds in turn on one control plane, as ratios: what a machine does to both of a pair is in neither ratio.

A pair is both builds one after the other, the next pair the other way round. Each build takes the same backlog from its
own exec until its volumes are written and its events with them, then deletes it. Judge by the median of nine pairs; one
and the same build against itself shows what the machine's noise is worth. Rates need a machine that does nothing else.
"""

import statistics
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from bench.builds import Build
from bench.measure import Measure

FLAGS = ["--csi-address={sock}", "--kubeconfig={kubeconfig}", "--leader-election-namespace=default"]


@dataclass(frozen=True)
class Round:
    """Seconds of processor time are a claim's in ms, start included; rates a second; memory in MiB."""

    create_cpu: float
    delete_cpu: float
    create_rate: float
    """From exec to the last PersistentVolume."""
    middle_rate: float
    """Of the middle 80 % of the backlog: without start and end."""
    first_call: float
    memory: float
    """When all claims are bound and nothing has happened for some seconds."""


@dataclass(frozen=True)
class Memory:
    """In MiB."""

    idle: float
    settled: float
    """With the claims that it has made volumes for, all bound, and ten seconds without anything to do."""


@dataclass(frozen=True)
class Start:
    first_call: float
    """Milliseconds from exec to the first CreateVolume, on a control plane that has nothing else to do."""


async def compare(
    measure: Measure,
    old: Build,
    new: Build,
    *,
    pairs: int,
    claims: int,
    measured: Callable[[Measure, Build, int], Awaitable[Round | Memory | Start]],
) -> None:
    ratios: dict[str, list[float]] = {}
    figures: dict[str, tuple[list[float], list[float]]] = {}
    for number in range(pairs):
        order = (old, new) if number % 2 else (new, old)
        rounds = {build.name: await measured(measure, build, claims) for build in order}
        before, after = asdict(rounds[old.name]), asdict(rounds[new.name])
        for figure in before:
            ratios.setdefault(figure, []).append(after[figure] / before[figure])
            for values, value in zip(
                figures.setdefault(figure, ([], [])), (before[figure], after[figure]), strict=True
            ):
                values.append(value)
        print(f"pair {number + 1}: " + ", ".join(f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in before))
    print(f"\n{new.name} / {old.name}, {claims} claims, {pairs} pairs: median (smallest to largest), ratio of medians")
    for figure, values in ratios.items():
        spread = f"({min(values):.3f} to {max(values):.3f})"
        then, now = map(statistics.median, figures[figure])
        print(f"{figure:>12}  {statistics.median(values):.3f}  {spread}  {now / then:.3f}", flush=True)


async def start_round(measure: Measure, build: Build, claims: int) -> Start:
    return Start(1000 * await measure.first_call_at_rest(build.command(FLAGS), claims))


async def memory_round(measure: Measure, build: Build, claims: int) -> Memory:
    command = build.command(FLAGS)
    async with measure.running(command) as provisioner:
        await provisioner.quiet()
        idle = provisioner.memory()
    await measure.create_claims(claims)
    async with measure.running(command) as provisioner:
        await measure.all_bound(claims)
        await provisioner.quiet(seconds=10)
        settled = provisioner.memory()
    await measure.release(claims)
    async with measure.running(command):
        await measure.all_gone()
    return Memory(idle, settled)


async def one_round(measure: Measure, build: Build, claims: int) -> Round:
    command = build.command(FLAGS)
    await measure.create_claims(claims)
    await measure.rest()  # else rates and the first call tell how much the controllers left to the two
    async with measure.running(command) as provisioner:
        written = await measure.volumes_written(claims)
        await measure.all_bound(claims)
        await provisioner.quiet(seconds=3)
        create_cpu, memory, started = provisioner.cpu(), provisioner.memory(), provisioner.started
    first_call = measure.first_call("CreateVolume") - started
    await measure.release(claims)
    async with measure.running(command) as provisioner:
        await measure.all_gone()
        await provisioner.quiet()
        delete_cpu = provisioner.cpu()
    tenth = claims // 10
    middle = written[-1 - tenth] - written[tenth]
    return Round(
        create_cpu=1000 * create_cpu / claims,
        delete_cpu=1000 * delete_cpu / claims,
        create_rate=claims / (written[-1] - started),
        middle_rate=(claims - 2 * tenth) / middle,
        first_call=first_call,
        memory=memory,
    )
