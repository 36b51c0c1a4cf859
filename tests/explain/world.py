"""A cluster in which nobody acts, a driver that answers, and the command. Shared by all claims of a module."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from csi_provisioner.commands import explain
from sandbox.api.errors import Object
from sandbox.api.faults import Fault
from sandbox.api.objects import Objects
from sandbox.api.server import ApiServer, serve
from sandbox.driver import Config, Driver
from tests import canary

DRIVER = "disk.acme.test"
LAME = "lame.acme.test"
NAMESPACE = "default"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
SELECTED = "volume.kubernetes.io/selected-node"
SECRET = "csi.storage.k8s.io/provisioner-secret"
PLUGIN = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


@dataclass(eq=False)
class World:
    server: ApiServer
    folder: Path

    @property
    def objects(self) -> Objects:
        return self.server.objects

    # ---- objects

    def make(self, kind: str, name: str, namespace: str = "", *, status: Object | None = None, **fields: Any) -> Object:
        metadata = {"name": name} | fields.pop("metadata", {})
        finalizers = metadata.pop("finalizers", None)
        if kind.startswith("VolumeSnapshot"):
            fields |= {"kind": kind, "apiVersion": "snapshot.storage.k8s.io/v1"}
        made = self.objects.create(kind, {"metadata": metadata} | fields, namespace).obj
        if finalizers:
            self.objects.edit(kind, name, namespace, change=lambda obj: obj["metadata"].update(finalizers=finalizers))
        if status:
            self.objects.edit(kind, name, namespace, change=lambda obj: obj.update(status=status), status=True)
        return self.objects.find(kind, name, namespace) or made

    def secret(self, name: str) -> None:
        self.objects.create("Secret", canary.secret(name, password="p"), NAMESPACE)

    def storage_class(self, name: str = "fast", driver: str = DRIVER, *, late: bool = False, **fields: Any) -> None:
        mode = "WaitForFirstConsumer" if late else "Immediate"
        self.make("StorageClass", name, provisioner=driver, volumeBindingMode=mode, **fields)

    def claim(self, name: str, class_: str | None = "fast", *, of: str = DRIVER, node: str = "", size: str = "5Gi",
              status: Object | None = None, finalizers: list[str] | None = None, **spec: Any) -> str:  # fmt: skip
        """As the volume controller has annotated it for a driver; its UID."""
        annotations = {PROVISIONER: of} if of else {}
        annotations |= {SELECTED: node} if node else {}
        wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        wanted |= {} if class_ is None else {"storageClassName": class_}
        metadata = {"annotations": annotations, "finalizers": finalizers or []}
        made = self.make("PersistentVolumeClaim", name, NAMESPACE, status=status, metadata=metadata, spec=wanted | spec)
        return str(made["metadata"]["uid"])

    def volume(self, name: str, *, claim: Object | None = None, phase: str = "Available", driver: str = DRIVER,
               class_: str = "fast") -> None:  # fmt: skip
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "5Gi"},
            "storageClassName": class_,
            "csi": {"driver": driver, "volumeHandle": f"h-{name}"},
        }
        self.make("PersistentVolume", name, spec=spec | ({"claimRef": claim} if claim else {}), status={"phase": phase})

    def snapshot(self, name: str, *, driver: str = DRIVER, ready: bool = True, size: str = "1Gi",
                 finalizers: list[str] | None = None) -> None:  # fmt: skip
        status = {"boundVolumeSnapshotContentName": f"c-{name}", "readyToUse": ready, "restoreSize": size}
        made = self.make("VolumeSnapshot", name, NAMESPACE, status=status, metadata={"finalizers": finalizers or []},
                         spec={"source": {"volumeSnapshotContentName": f"c-{name}"}})  # fmt: skip
        reference = {"name": name, "namespace": NAMESPACE, "uid": made["metadata"]["uid"]}
        spec = {"deletionPolicy": "Delete", "driver": driver, "source": {"snapshotHandle": "s"}}
        self.make("VolumeSnapshotContent", f"c-{name}", spec=spec | {"volumeSnapshotRef": reference},
                  status={"snapshotHandle": "s", "readyToUse": ready})  # fmt: skip

    def pod(self, name: str, claim: str, *, message: str = "", node: str = "") -> None:
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": claim}}
        spec = {"containers": [{"name": "c", "image": "i"}], "volumes": [volume]}
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        status = {"phase": "Pending", "conditions": [condition] if message else []}
        self.make("Pod", name, NAMESPACE, spec=spec | ({"nodeName": node} if node else {}), status=status)

    def node(self, name: str, keys: list[str] | None, **labels: str) -> None:
        self.make("Node", name, metadata={"labels": {f"acme.test/{key}": value for key, value in labels.items()}})
        entry = {"name": DRIVER, "nodeID": name, "topologyKeys": [f"acme.test/{key}" for key in keys or ()]}
        self.make("CSINode", name, spec={"drivers": [] if keys is None else [entry]})

    def event(self, claim: str, uid: str, message: str, reason: str = "ProvisioningFailed") -> None:
        reference = {"kind": "PersistentVolumeClaim", "name": claim, "namespace": NAMESPACE, "uid": uid}
        when = "2025-01-01T00:00:00Z"
        self.make("Event", f"of-{claim}", NAMESPACE, involvedObject=reference, type="Warning", reason=reason,
                  message=message, source={"component": f"{DRIVER}_pod_1"}, firstTimestamp=when,
                  lastTimestamp=when)  # fmt: skip

    def deny(self, verb: str, kind: str) -> None:
        """To the command, until the test is over."""
        self.server.faults.add(Fault(verb, kind, code=403, times=None, message=f"cannot {verb}"))

    # ---- the command

    def socket(self, driver: str = DRIVER) -> str:
        return str(self.folder / f"{driver}.sock")

    async def ask(self, capsys: pytest.CaptureFixture[str], *arguments: str, environ: dict[str, str] | None = None,
                  driver: str = DRIVER) -> Answer:  # fmt: skip
        given = [f"--kubeconfig={self.folder / 'kubeconfig'}", *arguments]
        if driver:
            given.append(f"--csi-address={self.socket(driver)}")
        asked = explain.COMMAND.read(given, environ or {}, explain.wanted)
        code = asked if isinstance(asked, int) else await explain.COMMAND.answered(explain.answer, *asked)
        out, err = capsys.readouterr()
        return Answer(code, out, err)


@asynccontextmanager
async def worlds(folder: Path) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, objects=Objects(seed=1), binder=False))
        (folder / "kubeconfig").write_text(server.kubeconfig_text())
        world = World(server, folder)
        for config in (
            Config(name=DRIVER, plugin=PLUGIN, node_segment={"acme.test/zone": "z-7"}),
            Config(name=LAME, controller=()),
        ):
            await nursery.start(Driver(config).serve, world.socket(config.name))
        yield world
        nursery.cancel_scope.cancel()
