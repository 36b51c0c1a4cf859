"""The API servers to measure against: the sandbox's and a real control plane, each as processes of their own."""

import collections
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.controlplane import ControlPlane, binaries

Requests = collections.Counter[str]

# the requests of service accounts, once each: only the provisioner comes as one
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


@dataclass
class Cluster:
    """Where to go, as whom, and what only this cluster can do."""

    name: str
    admin: Path
    provisioner: Path
    pause_controllers: Callable[[], None]
    """Stop what binds claims, so that many objects of others cost the provisioner's memory and nothing else."""
    resume_controllers: Callable[[], None]
    count_requests: Callable[[], None]
    """From now on; a real API server needs a restart for it and is slower afterwards."""
    requests: Callable[[], Requests]
    """The provisioner's requests since it was asked last, by verb and resource, and status if refused."""


@asynccontextmanager
async def sandbox(folder: Path) -> AsyncIterator[Cluster]:
    kubeconfig = folder / "kubeconfig"
    command = [sys.executable, "-m", "bench.sandbox", str(kubeconfig)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220 - nothing else runs meanwhile
    out = process.stdout
    assert out
    out.readline()

    def requests() -> Requests:
        process.send_signal(signal.SIGUSR1)
        return collections.Counter(json.loads(out.readline()))

    try:
        yield Cluster("sandbox", kubeconfig, kubeconfig, _nothing, _nothing, _nothing, requests)
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[Cluster]:
    """etcd, kube-apiserver, kube-controller-manager, kube-scheduler; the provisioner has the rights of kustomize/."""
    programs = binaries()
    if programs is None:
        raise RuntimeError("no control plane: set KUBEBUILDER_ASSETS, or install Go 1.26")
    plane = ControlPlane(folder, programs)
    audit = _Audit(plane)

    def send(number: signal.Signals) -> None:
        for name in ("kube-controller-manager", "kube-scheduler"):
            plane.processes[name].send_signal(number)

    try:
        plane.start()  # not in a worker thread: its processes are killed when the thread that started them ends
        yield Cluster(
            "control plane",
            plane.admin_kubeconfig,
            plane.provisioner_kubeconfig,
            lambda: send(signal.SIGSTOP),
            lambda: send(signal.SIGCONT),
            audit.start,
            audit.requests,
        )
    finally:
        plane.stop()


def _nothing() -> None:
    """The sandbox counts always, and its binder has nothing to do with objects of others."""


class _Audit:
    """The API server's audit log, read from where it was read last."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._log = plane.folder / "audit.log"
        self._read = 0

    def start(self) -> None:
        policy = self._plane.folder / "audit-policy.json"
        policy.write_text(json.dumps(_AUDIT_POLICY))
        self._plane.restart_apiserver(f"--audit-policy-file={policy}", f"--audit-log-path={self._log}")

    def requests(self) -> Requests:
        self._log.touch()  # it is there from the first request on
        with self._log.open() as log:
            log.seek(self._read)
            lines = log.readlines()
            self._read = log.tell()
        return collections.Counter(map(_request, map(json.loads, lines)))


def _request(line: dict[str, Any]) -> str:
    code = line["responseStatus"]["code"]
    return f"{line['verb']} {line.get('objectRef', {}).get('resource', '?')}" + (f" ({code})" if code >= 300 else "")
