"""The sandbox's API server as a process: `python -m bench.sandbox KUBECONFIG`. SIGUSR1 prints its requests."""

import collections
import json
import signal
import sys
from pathlib import Path

import trio

from sandbox.api.server import ApiServer, serve


def _requests(server: ApiServer) -> str:
    """Requests since the last time, counted by verb and kind; those of the measurements themselves left out."""
    counts = collections.Counter(
        f"{call.verb} {call.kind}" + (f" ({call.code})" if call.code >= 300 else "")
        for call in server.calls
        if not call.agent.startswith("bench")
    )
    server.calls.clear()
    return json.dumps(counts)


async def _main(kubeconfig: Path) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            server: ApiServer = await nursery.start(serve)
            await trio.Path(kubeconfig).write_text(server.kubeconfig_text())
            print("listening", flush=True)
            async for number in signals:
                if number == signal.SIGTERM:
                    nursery.cancel_scope.cancel()
                else:
                    print(_requests(server), flush=True)


if __name__ == "__main__":
    trio.run(_main, Path(sys.argv[1]))
