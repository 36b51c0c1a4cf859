"""What caches and events cost: `python -m bench.store_memory [objects]`.

Memory of the caches of a leader for other drivers' claims, for our own that wait, and for pairs of a bound claim and
its volume, for which nothing is to be done; time for one watch event from the bytes to the handlers, for a list that is
swapped in unchanged, and for recording an event. Goals: nothing for foreign claims, 0.6 KB a settled pair, 0.05 ms a
watch event, 0.02 ms a record.
"""

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec
import trio
from lightkube.core.resource import Resource

from csi_provisioner.kube.caches import Caches
from csi_provisioner.kube.client import KubeClient, WatchEvent
from csi_provisioner.kube.events import LINES, EventRecorder
from csi_provisioner.kube.store import Fresh, Store
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.supervisor.caches import caches_for

T = TypeVar("T", bound=Resource)
PROVISIONER = "volume.kubernetes.io/storage-provisioner"


def volume_bytes(number: int, driver: str) -> bytes:
    """A volume as the API server sends it, bound to the claim of that number."""
    uid, name = str(UUID(int=number)), f"pvc-{UUID(int=number)}"
    claim = {"namespace": f"team-{number % 50}", "name": f"data-database-{number}", "uid": uid}
    volume = {
        "metadata": {
            "name": name,
            "uid": str(UUID(int=number + (1 << 64))),
            "resourceVersion": str(1000 + number),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"pv.kubernetes.io/provisioned-by": driver},
            "finalizers": ["kubernetes.io/pv-protection", "external-provisioner.volume.kubernetes.io/finalizer"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "10Gi"},
            "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1"} | claim,
            "csi": {"driver": driver, "volumeHandle": uid, "volumeAttributes": {"share": f"/exports/{name}"}},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "fast",
            "volumeMode": "Filesystem",
        },
        "status": {"phase": "Bound"},
    }
    return json.dumps(volume).encode()


def claim_bytes(number: int, driver: str, *, bound: bool = True) -> bytes:
    """A claim as the API server sends it, with the fields that nobody here reads."""
    labels = {"app": f"app-{number % 100}", "app.kubernetes.io/managed-by": "Helm"}
    managed: dict[str, Any] = {"f:metadata": {"f:annotations": {".": {}, f"f:{PROVISIONER}": {}}}}
    claim = {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "metadata": {
            "name": f"data-database-{number}",
            "namespace": f"team-{number % 50}",
            "uid": str(UUID(int=number)),
            "resourceVersion": str(1000 + number),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels,
            "annotations": {"volume.beta.kubernetes.io/storage-provisioner": driver, PROVISIONER: driver},
            "finalizers": ["kubernetes.io/pvc-protection"],
            "managedFields": [{"manager": "controller", "operation": "Update", "fieldsV1": managed}],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Gi"}},
            "storageClassName": "fast",
            "volumeMode": "Filesystem",
            "volumeName": f"pvc-{UUID(int=number)}" if bound else None,
        },
        "status": {
            "phase": "Bound" if bound else "Pending",
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "10Gi"},
        },
    }
    return json.dumps(claim).encode()


def caches() -> Caches:
    """Those of a leader whose memory holds nothing."""
    return caches_for(DriverFacts("ours"), None, holds_claim=lambda _uid: False, holds_volume=lambda _name: False)


def admitted(kind: type[T], lines: list[bytes], store: Store[T]) -> Fresh[T]:
    decode, fresh = msgspec.json.Decoder(kind).decode, Fresh[T]()
    for line in lines:
        store.admit(decode(line), fresh)
    return fresh


def memory(claims: list[bytes], volumes: list[bytes]) -> float:
    """MB that the caches keep of these."""
    gc.collect()
    tracemalloc.start()
    kept_by, version = caches(), str(1000 + len(claims))
    for kind, lines, store in (
        (PersistentVolumeClaim, claims, kept_by.claims),
        (PersistentVolume, volumes, kept_by.volumes),
    ):
        store.tell(store.replace(admitted(kind, lines, store), version))
        store.cool(list(store.warm))
    gc.collect()
    kept, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept / 1e6


def cpu(times: int, work: Callable[[], object]) -> float:
    """Milliseconds of CPU for each of so many pieces of work."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1e3 / times


def watch_events(count: int, driver: str) -> float:
    store = caches().claims
    heard: list[str] = []
    store.subscribe(lambda key, _old, _new: heard.append(key))
    decode = msgspec.json.Decoder(WatchEvent[PersistentVolumeClaim]).decode
    lines = [b'{"type":"MODIFIED","object":' + claim_bytes(number, driver) + b"}" for number in range(count)]

    def work() -> None:
        for line in lines:
            store.put(decode(line).object)

    return cpu(count, work)


def relist(count: int) -> float:
    """Milliseconds in which nobody else runs while an unchanged list is swapped in."""
    store, version = caches().claims, str(1000 + count)
    lines = [claim_bytes(number, "ours") for number in range(count)]
    store.replace(admitted(PersistentVolumeClaim, lines, store), version)
    fresh = admitted(PersistentVolumeClaim, lines, store)
    return cpu(1, lambda: store.replace(fresh, version))


async def records(count: int) -> tuple[float, float]:
    """Milliseconds a record, and MB kept when all lines are in use."""
    decode = msgspec.json.Decoder(PersistentVolumeClaim).decode
    claims = [decode(claim_bytes(number, "ours")) for number in range(count)]
    recorder = EventRecorder(cast("KubeClient", None), "driver_host_1")

    def work() -> None:
        for claim in claims:
            recorder.record(claim, "Normal", "Provisioning", "External provisioner is provisioning a volume")

    gc.collect()
    tracemalloc.start()
    for claim in claims[:LINES]:
        recorder.record(claim, "Normal", "Provisioning", "External provisioner is provisioning a volume")
        recorder.record(claim, "Normal", "ProvisioningSucceeded", "Successfully provisioned the volume")
    kept, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return cpu(count, work), kept / 1e6


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    theirs, bound = ([claim_bytes(n, driver) for n in range(count)] for driver in ("theirs", "ours"))
    print(f"{count} claims of other drivers: {memory(theirs, []):.2f} MB")
    print(f"{count} that wait: {memory([claim_bytes(n, 'ours', bound=False) for n in range(count)], []):.2f} MB")
    pairs = memory(bound, [volume_bytes(n, "ours") for n in range(count)])
    print(f"{count} that are bound, and their volumes: {pairs:.2f} MB, {pairs / count * 1e3:.2f} KB a pair")
    print(f"a watch event, theirs: {watch_events(count, 'theirs'):.4f} ms; ours: {watch_events(count, 'ours'):.4f} ms")
    print(f"swapping in {count} unchanged claims: {relist(count):.1f} ms")
    each, kept = trio.run(records, count)
    print(f"recording an event: {each:.4f} ms; {LINES} objects with two events each: {kept:.2f} MB")


if __name__ == "__main__":
    main()
