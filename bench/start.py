"""What a start costs until probes are answered, with neither a driver nor an API server to be met."""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 9
TICKS = os.sysconf("SC_CLK_TCK")
KUBECONFIG = """{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}],
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]}"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG)
        runs = [_start(Path(folder)) for _ in range(RUNS)]
    for what, values in zip(("bound", "/livez 200"), zip(*runs, strict=True), strict=True):
        print(f"exec to {what}: {min(values):.2f} s of CPU, median {statistics.median(values):.2f} ({RUNS} starts)")


def _start(folder: Path) -> tuple[float, float]:
    port = _free_port()
    arguments = [f"--csi-address={folder}/csi.sock", f"--kubeconfig={folder}/kubeconfig"]
    command = [sys.executable, "-m", "csi_provisioner", *arguments, f"--http-endpoint=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with _connected(port) as connection:
            bound = _cpu(process.pid)
            connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            assert b" 200 " in connection.recv(100)
            return bound, _cpu(process.pid)
    finally:
        process.kill()
        process.wait()


def _connected(port: int) -> socket.socket:
    for _ in range(10_000):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.002)
    raise TimeoutError("nothing listens")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
