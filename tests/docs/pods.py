"""Stands for a kubelet and the controllers of apps/v1: what a csi-provisioner container would run, runs here.

For each replica of a Deployment, StatefulSet or DaemonSet that has such a container there is a Pod and a process: the
container's command and environment, with a token of the pod's account. Other containers do not run; in place of the
driver's one driver of the sandbox serves all of them.
"""

import json
import re
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster.controlplane import REPOSITORY, ControlPlane, free_ports

Object = dict[str, Any]
KINDS = ("deployments", "statefulsets", "daemonsets")
CONTAINER = "csi-provisioner"
LOOK = 0.3
READY = {"conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}]}


@dataclass
class Running:
    pod: str
    address: str
    process: subprocess.Popen[bytes]
    ready: bool = False


class Pods:
    """Looks at the workloads again and again until the block is left; `driver` is the name that the driver says."""

    def __init__(self, plane: ControlPlane, folder: Path, driver: str) -> None:
        self._plane = plane
        self._folder = folder
        self._driver = driver
        self._over = threading.Event()
        self._running: dict[tuple[str, ...], Running] = {}
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._folder.mkdir()
        (self._folder / "driver.json").write_text(json.dumps({"name": self._driver}))
        self._socket = self._folder / "csi.sock"
        command = ["-m", "sandbox.driver", f"--socket={self._socket}", f"--config={self._folder / 'driver.json'}"]
        self._plugin = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, stdout=subprocess.PIPE)
        assert self._plugin.stdout is not None
        self._plugin.stdout.readline()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for running in self._running.values():
            running.process.kill()
            running.process.wait()
        self._plugin.kill()
        self._plugin.communicate()

    def logs(self) -> str:
        return "".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in sorted(self._folder.glob("*.log")))

    # ---- what has to run

    def _work(self) -> None:
        while not self._over.wait(LOOK):
            workloads = [(kind, item) for kind in KINDS for item in self._ask(f"/apis/apps/v1/{kind}")["items"]]
            ours = [(kind, item, c) for kind, item in workloads if (c := self._container(item))]
            wanted = {
                (item["metadata"]["namespace"], f"{item['metadata']['name']}-{number}", json.dumps(c)): (item, c)
                for _, item, c in ours
                for number in range(item["spec"].get("replicas", 1))
            }
            for key in self._running.keys() - wanted.keys():
                self._end(key)
            for key in wanted.keys() - self._running.keys():
                self._running[key] = self._begin(key[0], key[1], *wanted[key])
            for running in self._running.values():
                if not running.ready and self._is_ready(running):
                    running.ready = True
                    self._ask(f"{running.pod}/status", "PATCH", {"status": READY | {"phase": "Running"}})
            for kind, item, _ in ours:
                self._report(kind, item)

    @staticmethod
    def _container(item: Object) -> Object | None:
        found = [one for one in item["spec"]["template"]["spec"]["containers"] if one["name"] == CONTAINER]
        return found[0] if found else None

    def _begin(self, namespace: str, name: str, item: Object, container: Object) -> Running:
        path = f"/api/v1/namespaces/{namespace}/pods"
        self._ask(f"{path}/{name}?gracePeriodSeconds=0", "DELETE")
        template = item["spec"]["template"]
        pod = self._ask(path, "POST", {"metadata": {"name": name, "labels": template["metadata"]["labels"]},
                                       "spec": template["spec"] | {"nodeName": "node-1"}})  # fmt: skip
        account = template["spec"].get("serviceAccountName", "default")
        token = self._ask(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", "POST", {"spec": {}})
        kubeconfig = self._plane.kubeconfig(
            "pod", file=f"{name}.kubeconfig", credential={"token": token["status"]["token"]}
        )
        environment = {one["name"]: self._value(one, pod) for one in container.get("env", [])}
        address = f"127.0.0.1:{free_ports(1)[0]}"
        given = [*container.get("command", [])[1:], *container.get("args", [])]
        arguments = [re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), one) for one in given]
        arguments += [f"--csi-address={self._socket}", f"--kubeconfig={kubeconfig}", f"--http-endpoint={address}"]
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "csi_provisioner", *arguments],
                cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return Running(f"{path}/{name}", address, process)

    @staticmethod
    def _value(one: Object, pod: Object) -> str:
        if "valueFrom" not in one:
            return str(one.get("value", ""))
        value: Any = pod
        for part in one["valueFrom"]["fieldRef"]["fieldPath"].split("."):
            value = value[part]
        return str(value)

    def _end(self, key: tuple[str, ...]) -> None:
        running = self._running.pop(key)
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(30)
        self._ask(f"{running.pod}?gracePeriodSeconds=0", "DELETE")

    def _is_ready(self, running: Running) -> bool:
        try:
            with self._opener.open(f"http://{running.address}/readyz", timeout=2):
                return True
        except OSError:
            return False

    def _report(self, kind: str, item: Object) -> None:
        """As `kubectl rollout status` reads it."""
        meta = item["metadata"]
        replicas = item["spec"].get("replicas", 1)
        ready = sum(
            one.ready for (namespace, name, _), one in self._running.items()
            if (namespace, name.rpartition("-")[0]) == (meta["namespace"], meta["name"])
        )  # fmt: skip
        status: Object = {"observedGeneration": meta["generation"]}
        if kind == "daemonsets":
            counts = dict.fromkeys(["currentNumberScheduled", "desiredNumberScheduled", "updatedNumberScheduled"], 1)
            status |= counts | {"numberMisscheduled": 0, "numberReady": ready, "numberAvailable": ready}
        else:
            status |= {"replicas": replicas, "updatedReplicas": replicas, "readyReplicas": ready,
                       "availableReplicas": ready}  # fmt: skip
        if kind == "statefulsets":
            status |= {"currentReplicas": replicas, "currentRevision": "1", "updateRevision": "1"}
        if status.items() - item.get("status", {}).items():
            self._ask(
                f"/apis/apps/v1/namespaces/{meta['namespace']}/{kind}/{meta['name']}/status",
                "PATCH",
                {"status": status},
            )

    def _ask(self, path: str, method: str = "GET", body: Object | None = None) -> Object:
        """The answer; nothing where the object is gone."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        head = {"Authorization": f"Bearer {self._plane.tokens['admin']}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self._plane.server + path, data, head, method=method)
            with self._opener.open(request, timeout=20) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error
            return {}
