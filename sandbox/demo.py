"""The main job for somebody who has no cluster: `python -m sandbox` (nox session `sandbox`).

In one process and one nursery run an embedded Kubernetes API, an embedded CSI driver, and the provisioner, which is
started by its command-line flags as in a cluster and knows nothing of where it is. Claims get their volumes and give
them back; `story` tells of it. Nothing between the three is simulated: they speak HTTP and gRPC. With a driver of your
own (`--driver-socket`) the embedded one stays out of it.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import trio

from csi_provisioner import configuration, flags, supervisor
from csi_provisioner.csi import driver as csi_driver
from csi_provisioner.csi.channel import Channel
from csi_provisioner.fatal import Fatal
from csi_provisioner.logs import configure
from csi_provisioner.metrics import Metrics
from csi_provisioner.settings import CsiSettings, Settings
from sandbox import story
from sandbox.api.objects import Objects
from sandbox.api.server import ApiServer
from sandbox.api.server import serve as serve_api
from sandbox.driver import Driver
from sandbox.story import Story

CLASS = "sandbox"
# A chapter that takes longer has gone wrong: seconds for the first claim, and for each one more on a slow machine.
PATIENCE, PATIENCE_PER_CLAIM = 30.0, 0.2
# Seconds in which a driver of your own has to accept a connection
CONNECT = 10.0
INTERRUPTED = 130  # what shells say of a program that ended on Ctrl-C


class FailedError(Exception):
    """The story did not come to its end; the text says where it stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code: 0 if every claim got its volume and gave it back."""
    options = _parser().parse_args(arguments)
    out = sys.stdout
    with tempfile.TemporaryDirectory(prefix="csi-sandbox-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        log = folder / "provisioner.log"
        # The log has its own stream so that the story stays readable; its end is shown if the story fails.
        if not options.log:
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(log.open("w", buffering=1))))
        code = 1
        foreign = Foreign(options.driver_socket, dict(options.parameter)) if options.driver_socket else None
        try:
            demo = Demo(options.claims, folder, out, keep=options.keep, flags=options.flags, foreign=foreign)
            # Trio hands failures on in groups, also a single one.
            code = trio.run(demo.run)
        except* FailedError as group:
            out.write("".join(f"\nFAILED: {error}\n" for error in _leaves(group)))
            if log.exists() and log.stat().st_size:
                lines = log.read_text().splitlines(keepends=True)
                out.write("The end of the provisioner's log:\n" + "".join(lines[-20:]))
        return code


def settings(arguments: Sequence[str]) -> Settings:
    """The provisioner's settings, from flags as its command line has them; configures the log too."""
    try:
        values = flags.FLAGS.parse(arguments)
        logging = configuration.log_settings(values)
        configure(logging)
        found = configuration.read(values, {}, logging)
    except Fatal as error:
        raise FailedError(f"the provisioner refuses its flags: {error}") from error
    if found is None:
        raise FailedError("the provisioner has nothing to do with these flags")
    return found


@dataclass(frozen=True)
class Foreign:
    """A driver that runs already, and the parameters that its StorageClass needs."""

    socket: Path
    parameters: dict[str, str]


class Demo:
    """One performance. `folder` takes socket, kubeconfig and volumes; `flags` are more flags for the provisioner."""

    def __init__(
        self,
        claims: int,
        folder: Path,
        out: TextIO,
        *,
        keep: bool = False,
        flags: Sequence[str] = (),
        foreign: Foreign | None = None,
    ) -> None:
        self._claims = [f"claim-{number}" for number in range(1, claims + 1)]
        self._keep = keep
        self._flags = flags
        self._folder = folder
        self._out = out
        self._objects = Objects()
        self._foreign = foreign
        self._driver = Driver(folder=folder / "volumes") if foreign is None else None
        self._stop = trio.Event()
        self._telling = trio.CancelScope()

    async def run(self) -> int:
        tale = Story(self._objects, self._driver, len(self._claims), self._out)
        kubeconfig = self._folder / "kubeconfig"
        socket = self._folder / "csi.sock" if self._foreign is None else self._foreign.socket
        async with trio.open_nursery() as services:
            # First, so that Ctrl-C during the start leaves no socket and no folder behind.
            services.start_soon(self._stop_on_signal, services.cancel_scope)
            api: ApiServer = await services.start(partial(serve_api, objects=self._objects))
            await trio.Path(kubeconfig).write_text(api.kubeconfig_text())
            if self._driver is not None:
                await services.start(self._driver.serve, socket)
            # The StorageClass has to name the driver, and one of your own says its name only when asked.
            name = self._driver.config.name if self._driver is not None else await _name_of(socket)
            arguments = [f"--csi-address={socket}", f"--kubeconfig={kubeconfig}", *self._flags]
            embedded = ", embedded; volumes are folders" if self._driver is not None else ""
            tale.say(f"Kubernetes API  {api.url}  (embedded)")
            tale.say(f"CSI driver      {socket}  ({name}{embedded})")
            tale.say(f"provisioner     csi-provisioner {' '.join(arguments)}\n")
            async with trio.open_nursery() as nursery:
                # An inner nursery: the provisioner drains while API and driver still answer it.
                nursery.start_soon(self._provision, settings(arguments))
                with self._telling:
                    await self._tell(tale, kubeconfig, name)
                self._stop.set()
            services.cancel_scope.cancel()
        if self._telling.cancelled_caught and not self._keep:
            return INTERRUPTED
        return 0

    async def _provision(self, settings: Settings) -> None:
        code = await supervisor.run(settings, stop=self._stop)
        # It may only end when it is told to: whatever else it ends with is the demo's failure too.
        if code or not self._stop.is_set():
            raise FailedError(f"the provisioner ended with exit code {code}")

    async def _stop_on_signal(self, everything: trio.CancelScope) -> None:
        """The first signal ends the story and drains the provisioner, the second ends all at once."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self._telling.cancel_called:
                    everything.cancel()
                self._telling.cancel()

    async def _tell(self, tale: Story, kubeconfig: Path, driver: str) -> None:
        parameters = self._foreign.parameters if self._foreign is not None else {}
        self._objects.create("StorageClass", _storage_class(driver) | {"parameters": parameters})
        tale.line(f"storage class {CLASS} created, served by {driver}")
        for name in self._claims:
            self._objects.create("PersistentVolumeClaim", _claim(name), "default")
            await trio.lowlevel.checkpoint()
        await self._chapter(tale, story.BOUND)
        if self._keep:
            await self._leave_running(tale, kubeconfig)
        for name in self._claims:
            self._objects.delete("PersistentVolumeClaim", name, "default")
            await trio.lowlevel.checkpoint()
        await self._chapter(tale, story.REMOVED)
        # The API can look tidy although the driver leaks; a driver of your own cannot be looked into.
        if self._driver is not None and self._driver.state.volumes:
            raise FailedError(f"the driver still has {len(self._driver.state.volumes)} volumes")
        tale.say(f"\n{len(self._claims)} of {len(self._claims)} claims got their volume and gave it back.")

    async def _chapter(self, tale: Story, step: str) -> None:
        # Not for ever: a provisioner that hangs must not hang the demo.
        limit = PATIENCE + PATIENCE_PER_CLAIM * len(self._claims)
        with trio.move_on_after(limit) as patience:
            await tale.until(step)
        if patience.cancelled_caught:
            left = tale.missing(step, self._claims)
            some = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
            raise FailedError(f'after {limit:.0f} s "{step}" is still to come for {len(left)} claims: {some}')

    async def _leave_running(self, tale: Story, kubeconfig: Path) -> None:
        tale.in_numbers = False
        tale.say(
            f"\nAll of it keeps running until Ctrl-C. Try, in another terminal:\n\n  export KUBECONFIG={kubeconfig}"
        )
        tale.say("  kubectl get pvc,pv\n  kubectl delete pvc claim-1\n")
        await trio.sleep_forever()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="Shows csi-provisioner at work, with an embedded Kubernetes API and an embedded CSI driver.",
        epilog="Flags after -- go to the provisioner, for example: -- --v=5 --extra-create-metadata",
    )
    parser.add_argument("--claims", type=_count, default=3, metavar="N", help="how many claims (default: 3)")
    parser.add_argument("--keep", action="store_true", help="leave everything running and say how kubectl gets there")
    parser.add_argument("--log", action="store_true", help="show the provisioner's log on stderr")
    parser.add_argument(
        "--driver-socket",
        type=lambda text: Path(text).resolve(),
        metavar="PATH",
        help="a CSI driver that listens there, in place of the embedded one",
    )
    parser.add_argument(
        "--parameter",
        type=_parameter,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the StorageClass for that driver; may be given several times",
    )
    parser.add_argument("flags", nargs="*", metavar="-- FLAGS", help=argparse.SUPPRESS)
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least one claim is needed")
    return count


def _parameter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


async def _name_of(socket: Path) -> str:
    """What the driver calls itself: its StorageClass names it."""
    settings = CsiSettings(address=str(socket))
    async with Channel(settings.address, on_lost=lambda: None, metrics=Metrics()) as channel:
        driver = csi_driver.Driver(channel, settings)
        try:
            await driver.connect(CONNECT)
            await driver.probe_until_ready()
            return await driver.identify()
        except Fatal as error:
            raise FailedError(f"the driver at {socket} does not answer as it should: {error}") from error


def _storage_class(provisioner: str) -> dict[str, Any]:
    return {"metadata": {"name": CLASS}, "provisioner": provisioner, "reclaimPolicy": "Delete"}


def _claim(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "storageClassName": CLASS,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
