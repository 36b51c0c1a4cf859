"""The embedded driver as a process of its own: `python -m sandbox.driver --socket PATH`.

For programs that bring their own client: csi-sanity, kubectl with a real provisioner, benchmarks. Ends on SIGTERM and
SIGINT.
"""

import argparse
import json
import signal
import time
from pathlib import Path
from typing import TextIO

import trio

from sandbox.driver.config import Config, load
from sandbox.driver.server import Call, Driver


def main() -> None:
    parser = argparse.ArgumentParser(prog="sandbox.driver", description=__doc__)
    parser.add_argument("--socket", required=True, help="path of the Unix socket to listen on")
    parser.add_argument(
        "--folder", type=Path, help="keep the volumes in this folder; without it they are only remembered"
    )
    parser.add_argument("--config", type=Path, help="a JSON file with the fields of Config")
    parser.add_argument("--calls", type=argparse.FileType("a"), help="append a JSON line for every call that has ended")
    options = parser.parse_args()
    driver = Driver(load(options.config) if options.config else Config(), folder=options.folder)
    if options.calls:
        driver.on_call = lambda call: _record(call, options.calls)
    trio.run(_serve_until_signal, driver, options.socket)


async def _serve_until_signal(driver: Driver, socket: str) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(driver.serve, socket)
            # Whoever starts this program waits for the line: from here on a connection succeeds.
            print(f"listening on {socket}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()


def _record(call: Call, out: TextIO) -> None:
    # `on_call` also tells of the beginning, when there is no outcome to write down.
    if not call.running:
        line = {
            "time": time.time(),
            "rpc": call.rpc,
            "code": call.code,
            "cancelled": call.cancelled,
            "deadline": call.deadline,
        }
        out.write(json.dumps(line) + "\n")
        # At once, since the reader is another process and this one may be killed.
        out.flush()


if __name__ == "__main__":
    main()
