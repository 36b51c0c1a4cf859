"""A throw-away control plane on loopback: real etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

The fixture `control_plane` starts one for the whole test session, the first time a test asks for it. No kubelet runs
and service accounts are not admitted: nodes, CSINodes and pods are objects that a test writes. The provisioner comes
as its service account, with exactly the rights that `kustomize/` gives.
"""

import atexit
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

REPOSITORY = Path(__file__).parent.parent.parent
KUSTOMIZE = REPOSITORY / "kustomize"
# With the base, all that grants the daemon rights: the tests use every flag.
COMPONENTS = ("leader-election", "snapshots", "secrets", "reference-grants", "capacity")
RIGHTS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
CONTROLLERS = (
    "persistentvolume-binder-controller,persistentvolumeclaim-protection-controller,persistentvolume-protection-controller,"
    "namespace-controller,clusterrole-aggregation-controller"
)
PR_SET_PDEATHSIG = 1
CUSTOM_KINDS = (
    ("snapshot.storage.k8s.io", "v1", "Cluster", "VolumeSnapshotClass", "volumesnapshotclasses"),
    ("snapshot.storage.k8s.io", "v1", "Namespaced", "VolumeSnapshot", "volumesnapshots"),
    ("snapshot.storage.k8s.io", "v1", "Cluster", "VolumeSnapshotContent", "volumesnapshotcontents"),
    ("gateway.networking.k8s.io", "v1beta1", "Namespaced", "ReferenceGrant", "referencegrants"),
    ("monitoring.coreos.com", "v1", "Namespaced", "ServiceMonitor", "servicemonitors"),
)


def binaries() -> Path | None:
    """The folder with the control plane's programs; building them the first time takes minutes."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        return Path(assets)
    if not shutil.which("go"):
        return None
    build = [REPOSITORY / "tests" / "controlplane" / "build", os.environ.get("KUBERNETES", "1.36")]
    return Path(subprocess.run(build, check=True, capture_output=True, text=True).stdout.strip())


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def until(what: str, holds: Callable[[], bool], limit: float = 20.0) -> None:
    """Wait in real time: an API server's caches come a little later than its answers."""
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def die_with_the_tests() -> None:
    """Runs in the child: a test run that is killed leaves no control plane behind (elsewhere than Linux, `atexit`)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def custom_resource(group: str, version: str, scope: str, kind: str, plural: str) -> dict[str, Any]:
    """A stand-in for a definition that the provisioner reads: names, scope and the status subresource matter."""
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}} if group.startswith("snapshot.") else {},
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests only"},
        },
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [served],
        },
    }


class ControlPlane:
    """One cluster: where it is, who may enter, and how to hurt its API server."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # Linux takes the thread for the parent: one that a test restarts the API server from may end with the test.
        self.parent = ThreadPoolExecutor(1)
        self.port, self.etcd_port, self.etcd_peer_port, self.kcm_port, self.scheduler_port = free_ports(5)
        self.server = f"https://127.0.0.1:{self.port}"
        self.tokens: dict[str, str] = {}
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.crt"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self.rights = self.rendered_rights()
        account = next(right["metadata"] for right in self.rights if right["kind"] == "ServiceAccount")
        self.provisioner = (account["namespace"], account["name"])
        self.admin_kubeconfig = self.kubeconfig("admin")
        self.provisioner_kubeconfig = self.kubeconfig("provisioner")
        self.write_keys()

    # ---- identities

    def kubeconfig(
        self,
        user: str,
        *,
        server: str | None = None,
        file: str | None = None,
        credential: dict[str, object] | None = None,
    ) -> Path:
        """Writes (again) the kubeconfig of `admin`, `provisioner`, `controllers` or `scheduler`, or one like it."""
        token = self.tokens.setdefault(user, secrets.token_hex(24))
        path = self.folder / (file or f"{user}.kubeconfig")
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": server or self.server, "certificate-authority": str(self.ca_file)}}
            ],
            "users": [{"name": "u", "user": credential or {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
            "current-context": "c",
        }
        path.write_text(json.dumps(content))
        path.chmod(0o600)
        return path

    def write_keys(self) -> None:
        server = self.ca.issue_cert("127.0.0.1", "10.0.0.1", "localhost", "kubernetes.default.svc")
        server.private_key_pem.write_to_path(str(self.folder / "server.key"))
        server.cert_chain_pems[0].write_to_path(str(self.folder / "server.crt"))
        # any key pair signs service account tokens; this one has no other use
        self.ca.issue_cert("service-accounts.test").private_key_pem.write_to_path(str(self.folder / "sa.key"))
        self.kubeconfig("controllers")
        self.kubeconfig("scheduler")
        namespace, name = self.provisioner
        rows = [
            ("admin", "admin", ["system:masters"]),
            ("controllers", "system:kube-controller-manager", ["system:masters"]),
            ("scheduler", "system:kube-scheduler", []),
            (
                "provisioner",
                f"system:serviceaccount:{namespace}:{name}",
                ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"],
            ),
        ]
        lines = [f'{self.tokens[user]},{identity},{user},"{",".join(groups)}"\n' for user, identity, groups in rows]
        (self.folder / "tokens.csv").write_text("".join(lines))

    # ---- processes

    def spawn(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.processes[name] = self.parent.submit(
                subprocess.Popen,
                [self.programs / name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                preexec_fn=die_with_the_tests if os.uname().sysname == "Linux" else None,
                start_new_session=True,  # Ctrl-C is for the tests; they end it in order
            ).result()

    def end(self, name: str, how: signal.Signals) -> None:
        process = self.processes.pop(name, None)
        if process is not None:
            process.send_signal(how)
            process.wait()

    def start(self) -> None:
        self.start_etcd()
        self.start_apiserver()
        self.start_controllers()
        definitions = [custom_resource(*kind) for kind in CUSTOM_KINDS]
        home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.provisioner[0]}}
        self.apply(home, *definitions, *self.rights)
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_peer_port}"
        self.spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        )

    def start_apiserver(self, *flags: str) -> None:
        """Starts it on the same port and data and waits until it is ready. Later flags win over those given here."""
        folder = self.folder
        self.spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={folder / 'server.crt'}",
            f"--tls-private-key-file={folder / 'server.key'}",
            f"--client-ca-file={self.ca_file}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",  # as everywhere where drivers run
            f"--service-account-key-file={folder / 'sa.key'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            # fairness would make measurements depend on luck; tests of 429 switch it on again
            "--enable-priority-and-fairness=false",
            "--max-requests-inflight=0",
            "--max-mutating-requests-inflight=0",
            "--disable-admission-plugins=ServiceAccount",
            f"--cert-dir={folder / 'apiserver-certs'}",
            "--feature-gates=CrossNamespaceVolumeDataSource=true",
            *flags,
        )
        self.wait_ready()

    def wait_ready(self, limit: float = 60.0) -> None:
        trust = ssl.create_default_context(cafile=str(self.ca_file))
        request = urllib.request.Request(
            f"{self.server}/readyz", headers={"Authorization": f"Bearer {self.tokens['admin']}"}
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        until = time.monotonic() + limit
        while True:
            try:
                with opener.open(request, timeout=5):
                    return
            except OSError as error:  # HTTP errors and refused connections alike
                process = self.processes["kube-apiserver"]
                if process.poll() is not None or time.monotonic() > until:
                    log = (self.folder / "kube-apiserver.log").read_text()[-3000:]
                    raise RuntimeError(f"the API server does not get ready: {error}\n{log}") from error
            time.sleep(0.1)

    def start_controllers(self) -> None:
        for name, user, port, flags in (
            ("kube-controller-manager", "controllers", self.kcm_port, self.controller_flags()),
            ("kube-scheduler", "scheduler", self.scheduler_port, []),
        ):
            kubeconfig = self.folder / f"{user}.kubeconfig"
            self.spawn(
                name,
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--cert-dir={self.folder / f'{name}-certs'}",
                "--leader-elect=false",
                *flags,
            )

    def controller_flags(self) -> list[str]:
        return [
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            f"--root-ca-file={self.ca_file}",
            f"--controllers={CONTROLLERS}",
            "--pvclaimbinder-sync-period=2s",
            "--concurrent-namespace-syncs=10",
            "--kube-api-qps=10000",
            "--kube-api-burst=10000",
        ]

    def kill_apiserver(self) -> None:
        """As if the machine had gone: connections are reset, new ones refused."""
        self.end("kube-apiserver", signal.SIGKILL)

    def restart_apiserver(self, *flags: str) -> None:
        self.kill_apiserver()
        self.start_apiserver(*flags)

    def back_up(self) -> None:
        """What etcd has now; the API server waits for it meanwhile."""
        self.end("etcd", signal.SIGTERM)
        shutil.copytree(self.folder / "etcd", self.folder / "backup")
        self.start_etcd()

    def restore(self) -> None:
        """The cluster goes back to where it was at `back_up`, and whoever belongs to it starts anew."""
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            self.end(name, signal.SIGKILL)
        shutil.rmtree(self.folder / "etcd")
        (self.folder / "backup").rename(self.folder / "etcd")
        self.start_etcd()
        self.start_apiserver()
        self.start_controllers()

    def freeze_apiserver(self) -> None:
        """Connections stay open and nothing answers any more, until `thaw_apiserver`."""
        server = self.processes["kube-apiserver"]
        server.send_signal(signal.SIGSTOP)
        # The signal only asks for it: until all its threads have stopped, it may still answer.
        os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw_apiserver(self) -> None:
        self.processes["kube-apiserver"].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for name in reversed(list(self.processes)):
            self.end(name, signal.SIGKILL)  # nothing here is kept: an orderly end only costs time
        self.parent.shutdown()

    # ---- use

    def rendered_rights(self) -> list[dict[str, Any]]:
        folder = self.folder / "rights"
        folder.mkdir(exist_ok=True)
        base = os.path.relpath(KUSTOMIZE, folder)
        parts = {"resources": [f"{base}/base"], "components": [f"{base}/components/{name}" for name in COMPONENTS]}
        return [obj for obj in self.rendered(folder, parts) if obj["kind"] in RIGHTS]

    def rendered(self, folder: Path, kustomization: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """What a folder builds to; with a kustomization, which is written there first."""
        if kustomization is not None:
            (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        return list(yaml.safe_load_all(self.kubectl("kustomize", str(folder))))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        command = [self.programs / "kubectl", *arguments]
        if arguments[0] != "kustomize":
            command.append(f"--kubeconfig={self.admin_kubeconfig}")
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=self.folder)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def delete(self, *objects: dict[str, Any]) -> None:
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=given)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    programs = binaries()
    if programs is None:
        pytest.skip("no control plane: set KUBEBUILDER_ASSETS, or install Go 1.26")
    folder = tmp_path_factory.mktemp("control-plane")
    plane = ControlPlane(folder, programs)
    atexit.register(plane.stop)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        atexit.unregister(plane.stop)
        shutil.rmtree(folder / "etcd", ignore_errors=True)
