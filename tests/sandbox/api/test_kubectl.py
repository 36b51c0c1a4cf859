"""kubectl against the sandbox: the commands someone uses to look around in it."""

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.cluster.controlplane import binaries
from tests.sandbox.api.conftest import running

pytestmark = pytest.mark.cluster  # kubectl comes with the control plane's programs

CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "fast"},
    "provisioner": "driver.test",
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "1536Mi"}},
    },
}
THING = {"apiVersion": "a.test/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"x": 1}}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.a.test"},
    "spec": {
        "group": "a.test",
        "scope": "Namespaced",
        "names": {"kind": "Thing", "plural": "things"},
        "versions": [{"name": "v1", "served": True, "storage": True}],
    },
}


class Kubectl:
    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self.command = [str(program), f"--kubeconfig={kubeconfig}", f"--cache-dir={kubeconfig.parent / 'cache'}"]

    async def __call__(self, *arguments: str, stdin: object = None) -> str:
        text = b"" if stdin is None else json.dumps(stdin).encode()
        done = await trio.run_process(
            [*self.command, *arguments], stdin=text, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
        assert done.returncode == 0, done.stdout.decode()
        return done.stdout.decode()


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    programs = binaries()
    if programs is None:
        pytest.skip("no kubectl: set KUBEBUILDER_ASSETS, or install Go 1.26")
    async with running() as server:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(server.kubeconfig_text())
        yield Kubectl(programs / "kubectl", kubeconfig)


async def test_looking_around(kubectl: Kubectl) -> None:
    assert "sandbox" in await kubectl("version")
    kinds = await kubectl("api-resources")
    assert all(name in kinds for name in ("persistentvolumeclaims", "storageclasses", "volumesnapshots", "leases"))
    assert "v1" in await kubectl("api-versions")
    assert "No resources found" in await kubectl("get", "pvc")
    assert "default" in await kubectl("get", "ns")
    assert await kubectl("get", "--raw", "/readyz") == "ok"


async def test_applying_and_reading(kubectl: Kubectl) -> None:
    assert "created" in await kubectl("apply", "-f", "-", stdin=CLASS)
    assert "created" in await kubectl("apply", "-f", "-", stdin=CLAIM)
    assert "unchanged" in await kubectl("apply", "-f", "-", stdin=CLAIM)
    labelled = {**CLAIM, "metadata": {"name": "data", "labels": {"a": "b"}}}
    assert "configured" in await kubectl("apply", "-f", "-", stdin=labelled)
    header, row = (await kubectl("get", "pvc")).splitlines()
    assert header.split() == ["NAME", "STATUS", "VOLUME", "CAPACITY", "ACCESS", "MODES", "STORAGECLASS", "AGE"]
    assert row.split()[:2] == ["data", "Pending"]
    got = json.loads(await kubectl("get", "pvc", "data", "-o", "json"))
    assert got["metadata"]["labels"] == {"a": "b"}
    assert "apiVersion: v1" in await kubectl("get", "pvc", "-A", "-o", "yaml")
    assert await kubectl("get", "pvc", "-l", "a=b", "-o", "name") == "persistentvolumeclaim/data\n"
    description = await kubectl("describe", "pvc", "data")
    assert "StorageClass:  fast" in description
    assert "driver.test" in await kubectl("describe", "sc", "fast")


async def test_changing_and_deleting(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=CLASS)
    await kubectl("create", "-f", "-", stdin=CLAIM)
    await kubectl("annotate", "pvc", "data", "a.test/x=y")
    await kubectl("label", "pvc", "data", "a=b")
    await kubectl("patch", "pvc", "data", "-p", '{"metadata":{"finalizers":["a.test/held"]}}')
    await kubectl("patch", "pvc", "data", "--type=json", "-p", '[{"op":"remove","path":"/metadata/labels/a"}]')
    await kubectl("patch", "pvc", "data", "--type=merge", "-p", '{"metadata":{"annotations":{"a.test/x":null}}}')
    got = json.loads(await kubectl("get", "pvc", "data", "-o", "json"))["metadata"]
    assert got["finalizers"] == ["a.test/held", "kubernetes.io/pvc-protection"]
    assert "labels" not in got
    assert "deleted" in await kubectl("delete", "pvc", "data", "--wait=false")
    assert "Terminating" in await kubectl("get", "pvc")
    await kubectl("patch", "pvc", "data", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    await kubectl("wait", "--for=delete", "pvc/data", "--timeout=10s")
    assert "No resources found" in await kubectl("get", "pvc")


async def test_custom_resources(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=DEFINITION)
    await kubectl("wait", "--for=condition=Established", "crd/things.a.test", "--timeout=10s")
    await kubectl("apply", "-f", "-", stdin=THING)
    assert "configured" in await kubectl("apply", "-f", "-", stdin={**THING, "spec": {"x": 2}})
    assert json.loads(await kubectl("get", "things", "t", "-o", "json"))["spec"] == {"x": 2}
    assert "deleted" in await kubectl("delete", "thing", "t")
    assert "deleted" in await kubectl("delete", "crd", "things.a.test")


async def test_namespaces_and_pods(kubectl: Kubectl) -> None:
    # from files: what kubectl makes up itself it sends as protobuf, which the sandbox does not read
    await kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "team"}}
    await kubectl("apply", "-f", "-", stdin={**secret, "stringData": {"a": "b"}})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "team"}}
    await kubectl("apply", "-f", "-", stdin={**pod, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    assert "Pending" in await kubectl("get", "pods", "-n", "team")
    assert "deleted" in await kubectl("delete", "namespace", "team")
    assert "No resources found" in await kubectl("get", "secrets", "-A")


async def test_watching(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=CLASS)
    async with trio.open_nursery() as nursery:
        command = [*kubectl.command, "get", "pvc", "--watch", "-o", "name"]
        process = await nursery.start(_run_piped, command)
        await kubectl("apply", "-f", "-", stdin=CLAIM)
        assert (await process.stdout.receive_some()).startswith(b"persistentvolumeclaim/data")
        nursery.cancel_scope.cancel()


async def _run_piped(command: list[str], *, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(command, stdout=subprocess.PIPE, task_status=task_status)
