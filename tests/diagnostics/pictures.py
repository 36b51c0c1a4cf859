"""The page in the states that people meet it in, and pictures of it by a headless Chromium.

python -m tests.diagnostics.pictures FOLDER                       all states, wide and 400 px, light and dark
python -m tests.diagnostics.pictures FOLDER waiting-wide-light    one of them
python -m tests.diagnostics.pictures                              the README's: docs/how-to/observability/page.png
"""

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

from csi_provisioner.diagnostics import page
from csi_provisioner.model.state import (
    Details,
    DriverState,
    Failure,
    JournalState,
    KeyState,
    Lane,
    LaneState,
    LeadershipState,
    PendingState,
    Published,
    QueueState,
    Rate,
    RightsState,
    State,
    Task,
    Tried,
    WaitingClaim,
)

CHROMIUM = shutil.which("chromium")
WIDTHS, SCHEMES = {"wide": 1100, "400": 400}, {"light": 1, "dark": 0}
HEIGHT = 2200
README = Path(__file__).parent.parent.parent / "docs" / "how-to" / "observability" / "page.png"

NAME = "hostpath.csi.k8s.io"
CAPABILITIES = ("CREATE_DELETE_SNAPSHOT", "CREATE_DELETE_VOLUME", "GET_CAPACITY", "LIST_VOLUMES")
DRIVER = DriverState(NAME, True, None, "v1.17.0", ("CONTROLLER_SERVICE",), CAPABILITIES, True)
LEADS = LeadershipState(
    True, True, "", "csi-controller-0-5f2a91c3", "storage/hostpath-csi-k8s-io", "csi-controller-0-5f2a91c3", 93_000.0
)
KINDS = ("PersistentVolume", "PersistentVolumeClaim", "StorageClass", "VolumeAttachment")
OBJECTS = tuple(zip(KINDS, (1204, 1309, 3, 812), strict=True))
LAGS = tuple((kind, 4.0 + at) for at, kind in enumerate(KINDS))
QUIET = tuple(QueueState(name) for name in ("claims", "unsavedpvs", "volumes"))
CAPACITY = tuple(
    Published(f"topology.hostpath.csi/node=node-{node}", name, share << 30)
    for (node, name), share in zip(product("abc", ("fast", "slow")), (420, 900, 130, 610, 12, 55), strict=True)
)


def rates(*made: int, deleted: int = 0, failed: int = 0) -> tuple[Rate, ...]:
    return (
        Rate("volumes made", made),
        Rate("volumes deleted", (deleted,) * len(made)),
        Rate("failed tries", tuple(failed * (at % 3) for at in range(len(made)))),
    )


ERROR = "driver hostpath.csi.k8s.io could not create the volume: CreateVolume: rpc error: code = ResourceExhausted desc"
IDLE = State(
    DRIVER,
    LEADS,
    queues=QUIET,
    rights=RightsState(True),
    lags=LAGS,
    up=94_300.0,
    details=Details(
        capacity=CAPACITY,
        published=6,
        objects=OBJECTS,
        journal=JournalState(True),
        rates=rates(*(3, 0, 1, 0, 0, 2) * 10, deleted=1),
    ),
)
WAITING = State(
    DRIVER,
    LEADS,
    queues=(
        QueueState(
            "claims",
            200,
            100,
            41.0,
            lanes=(
                LaneState(Lane("fast"), 88, 183, None, None, 7400.0),
                LaneState(Lane("slow", "VolumeSnapshot"), 4, 13, 4, 3, 900.0),
            ),
        ),
        QueueState("unsavedpvs"),
        QueueState("volumes", 0, 2, lanes=(LaneState(Lane("fast"), 2),)),
    ),
    failures=tuple(
        Failure("claims", f"uid-{at}", f"claim team-a/data-{at}: {ERROR} = no pool has 100Gi", 2.0 + 7 * at)
        for at in range(4)
    ),
    rights=RightsState(True),
    pending=(
        PendingState("fast", "call", 96, 38.0),
        PendingState("fast", "queue", 183, 41.0),
        PendingState("slow", "source", 17, 310.0),
        PendingState("", "class", 4, 86_000.0),
    ),
    lags=LAGS,
    up=94_300.0,
    details=Details(
        tasks=tuple(Task("claims", f"team-a/data-{at}", 38.0 - at, 37.5 - at) for at in range(6)),
        waiting=(
            WaitingClaim("team-b/legacy", "", "class", 86_000.0),
            WaitingClaim(
                "team-a/restore-of-last-night",
                "slow",
                "source",
                310.0,
                KeyState(28.0, None, 6, Tried("refused", "VolumeSnapshot team-a/last-night is not ready", 32.0)),
            ),
            *(
                WaitingClaim(
                    f"team-a/data-{at}",
                    "fast",
                    "call",
                    41.0,
                    KeyState(None, 38.0, 2, Tried("ResourceExhausted", f"{ERROR} = no pool has 100Gi", 40.0)),
                )
                for at in range(5)
            ),
        ),
        capacity=CAPACITY,
        published=6,
        objects=OBJECTS,
        journal=JournalState(True, "", 96, 2),
        suspects=1,
        rates=rates(*(0,) * 20, *(2, 5, 9, 14, 3) * 8, failed=4),
    ),
)
STATES = {
    "idle": IDLE,
    "waiting": WAITING,
    "away": State(
        DriverState(NAME, False, 754.0, "v1.17.0", ("CONTROLLER_SERVICE",), CAPABILITIES, True),
        LEADS,
        queues=(QueueState("claims", 12, 0, 700.0), QueueState("unsavedpvs"), QueueState("volumes")),
        rights=RightsState(True),
        pending=(PendingState("fast", "driver", 12, 750.0),),
        lags=LAGS,
        up=94_300.0,
        details=Details(
            waiting=tuple(
                WaitingClaim(f"team-a/data-{at}", "fast", "driver", 750.0 - at, KeyState(-700.0)) for at in range(4)
            ),
            objects=OBJECTS,
            journal=JournalState(True, "", 3, 0),
            rates=rates(*(4,) * 12, *(0,) * 12),
        ),
    ),
    "rights": State(
        DRIVER,
        LeadershipState(
            True, False, "", "csi-controller-1-0b7c22d9", "storage/hostpath-csi-k8s-io", LEADS.identity, 93_000.0
        ),
        rights=RightsState(
            True,
            ("create persistentvolumes: no volume can be written", "list persistentvolumeclaims"),
            ("create events in all namespaces: nobody is told why",),
        ),
        begun=False,
        up=61.0,
        details=Details(rates=rates(0)),
    ),
}


def take(html: str, picture: Path, *, width: int, scheme: int, height: int = HEIGHT) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(html)
        _browse(
            Path(folder),
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            source.as_uri(),
        )


def dom(pages: Mapping[str, str], folder: Path, *, seconds: int, width: int = 1100) -> str:
    """What a browser has of /statusz after so much time, which it need not wait for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((found or "").encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/statusz"
        found = _browse(
            folder, f"--window-size={width},800", f"--virtual-time-budget={1000 * seconds}", "--dump-dom", address
        )
        server.shutdown()
    return found


def _browse(folder: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder}/user",
    ]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=60, text=True).stdout


def main() -> None:
    if not sys.argv[1:]:
        take(page.whole(WAITING, "1.0.0", local=True), README, width=880, scheme=1, height=880)
        return
    folder, wanted = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    for (state, found), (size, width), (scheme, number) in product(STATES.items(), WIDTHS.items(), SCHEMES.items()):
        name = f"{state}-{size}-{scheme}"
        if not wanted or name in wanted:
            take(page.whole(found, "1.0.0", local=True), folder / f"{name}.png", width=width, scheme=number)


if __name__ == "__main__":
    main()
