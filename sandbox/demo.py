"""The main job for somebody who has no cluster: `python -m sandbox` (nox session `sandbox`).

In one process and one nursery run an embedded Kubernetes API, an embedded CSI driver, and the provisioner, which is
started by its command-line flags as in a cluster and knows nothing of where it is. Claims get their volumes and give
them back; `story` tells of it. Nothing between the three is simulated: they speak HTTP and gRPC.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import trio

from csi_provisioner import configuration, flags, supervisor
from csi_provisioner.flagset import FlagError
from csi_provisioner.logs import configure
from csi_provisioner.settings import Settings
from sandbox import story
from sandbox.api.objects import Objects
from sandbox.api.server import ApiServer
from sandbox.api.server import serve as serve_api
from sandbox.driver import Driver
from sandbox.story import Story

CLASS = "sandbox"
# A chapter that takes longer has gone wrong: seconds for the first claim, and for each one more on a slow machine.
PATIENCE, PATIENCE_PER_CLAIM = 30.0, 0.2
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
        if not options.log:
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(log.open("w", buffering=1))))
        code = 1
        try:
            code = trio.run(Demo(options.claims, folder, out, keep=options.keep, flags=options.flags).run)
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
    except (FlagError, configuration.RefusedError) as error:
        raise FailedError(f"the provisioner refuses its flags: {error}") from error
    if found is None:
        raise FailedError("the provisioner has nothing to do with these flags")
    return found


class Demo:
    """One performance. `folder` takes socket, kubeconfig and volumes; `flags` are more flags for the provisioner."""

    def __init__(
        self, claims: int, folder: Path, out: TextIO, *, keep: bool = False, flags: Sequence[str] = ()
    ) -> None:
        self._claims = [f"claim-{number}" for number in range(1, claims + 1)]
        self._keep = keep
        self._flags = flags
        self._folder = folder
        self._out = out
        self._objects = Objects()
        self._driver = Driver(folder=folder / "volumes")
        self._stop = trio.Event()
        self._telling = trio.CancelScope()

    async def run(self) -> int:
        tale = Story(self._objects, self._driver, len(self._claims), self._out)
        kubeconfig, socket = self._folder / "kubeconfig", self._folder / "csi.sock"
        async with trio.open_nursery() as services:
            services.start_soon(self._stop_on_signal, services.cancel_scope)
            api: ApiServer = await services.start(partial(serve_api, objects=self._objects))
            await trio.Path(kubeconfig).write_text(api.kubeconfig_text())
            await services.start(self._driver.serve, socket)
            arguments = [f"--csi-address={socket}", f"--kubeconfig={kubeconfig}", *self._flags]
            self._introduce(tale, api, socket, arguments)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._provision, settings(arguments))
                with self._telling:
                    await self._tell(tale, kubeconfig)
                self._stop.set()
            services.cancel_scope.cancel()
        if self._telling.cancelled_caught and not self._keep:
            return INTERRUPTED
        return 0

    async def _provision(self, settings: Settings) -> None:
        code = await supervisor.run(settings, stop=self._stop)
        if code or not self._stop.is_set():
            raise FailedError(f"the provisioner ended with exit code {code}")

    async def _stop_on_signal(self, everything: trio.CancelScope) -> None:
        """The first signal ends the story and drains the provisioner, the second ends all at once."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self._telling.cancel_called:
                    everything.cancel()
                self._telling.cancel()

    def _introduce(self, tale: Story, api: ApiServer, socket: Path, arguments: Sequence[str]) -> None:
        tale.say(f"Kubernetes API  {api.url}  (embedded)")
        tale.say(f"CSI driver      {socket}  ({self._driver.config.name}, embedded; volumes are folders)")
        tale.say(f"provisioner     csi-provisioner {' '.join(arguments)}")
        tale.say()

    async def _tell(self, tale: Story, kubeconfig: Path) -> None:
        self._objects.create("StorageClass", _storage_class(self._driver.config.name))
        tale.line(f"storage class {CLASS} created, served by {self._driver.config.name}")
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
        if self._driver.state.volumes:
            raise FailedError(f"the driver still has {len(self._driver.state.volumes)} volumes")
        tale.say(f"\n{len(self._claims)} of {len(self._claims)} claims got their volume and gave it back.")

    async def _chapter(self, tale: Story, step: str) -> None:
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
    parser.add_argument("flags", nargs="*", metavar="-- FLAGS", help=argparse.SUPPRESS)
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least one claim is needed")
    return count


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
