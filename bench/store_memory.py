"""What caches and events cost: `python -m bench.store_memory [objects]`.

Memory of a store for other drivers' claims (their keys only), for our own and for volumes; time for one watch event
from the bytes to the handlers, for a list that is swapped in unchanged, and for recording an event. Goals: 20,000
foreign claims in less than 4 MB, 0.05 ms a watch event, 0.02 ms a record.
"""

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import msgspec
import trio

from csi_provisioner.kube.client import KubeClient, WatchEvent
from csi_provisioner.kube.events import LINES, EventRecorder
from csi_provisioner.kube.store import Store
from csi_provisioner.model.kubernetes import PersistentVolumeClaim

PROVISIONER = "volume.kubernetes.io/storage-provisioner"


def claim_bytes(number: int, driver: str) -> bytes:
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
            "volumeName": f"pvc-{UUID(int=number)}",
        },
        "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}},
    }
    return json.dumps(claim).encode()


def ours(claim: PersistentVolumeClaim) -> PersistentVolumeClaim | None:
    return claim if (claim.metadata.annotations or {}).get(PROVISIONER) == "ours" else None


def listed(lines: list[bytes], store: Store[PersistentVolumeClaim]) -> None:
    decode = msgspec.json.Decoder(PersistentVolumeClaim).decode
    fresh: dict[str, PersistentVolumeClaim | None] = {}
    for line in lines:
        store.admit(decode(line), fresh)
    store.replace(fresh, str(1000 + len(lines)))


def memory(lines: list[bytes]) -> float:
    """MB that a store of these claims keeps."""
    gc.collect()
    tracemalloc.start()
    store = Store(project=ours, index="uid")
    listed(lines, store)
    gc.collect()
    kept, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store) in (0, len(lines))
    return kept / 1e6


def cpu(times: int, work: Callable[[], object]) -> float:
    """Milliseconds of CPU for each of so many pieces of work."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1e3 / times


def watch_events(count: int, driver: str) -> float:
    store = Store(project=ours, index="uid")
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
    store: Store[PersistentVolumeClaim] = Store(index="uid")
    lines = [claim_bytes(number, "ours") for number in range(count)]
    listed(lines, store)
    decode = msgspec.json.Decoder(PersistentVolumeClaim).decode
    fresh: dict[str, PersistentVolumeClaim | None] = {}
    for line in lines:
        store.admit(decode(line), fresh)
    return cpu(1, lambda: store.replace(fresh, str(1000 + count)))


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
    print(f"{count} claims of other drivers: {memory([claim_bytes(n, 'theirs') for n in range(count)]):.2f} MB")
    print(f"{count} claims of ours: {memory([claim_bytes(n, 'ours') for n in range(count)]):.2f} MB")
    print(f"a watch event, theirs: {watch_events(count, 'theirs'):.4f} ms; ours: {watch_events(count, 'ours'):.4f} ms")
    print(f"swapping in {count} unchanged claims: {relist(count):.1f} ms")
    each, kept = trio.run(records, count)
    print(f"recording an event: {each:.4f} ms; {LINES} objects with two events each: {kept:.2f} MB")


if __name__ == "__main__":
    main()
