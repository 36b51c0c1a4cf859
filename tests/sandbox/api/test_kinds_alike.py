"""What the server makes of each kind, and refuses in it: a real API server and the sandbox held to one table."""

from typing import Any

import pytest

from tests.sandbox.api.client import (
    CAPACITIES,
    CLAIMS,
    CLASSES,
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    SNAPSHOTS,
    VOLUMES,
    Api,
    Object,
    claim,
    config_map,
    volume,
)

QUANTITIES = {
    "5Gi": "5Gi", "5368709120": "5368709120", "1024Mi": "1Gi", "1025Mi": "1025Mi", "1500000000": "1500M",
    "1000000000": "1G", "1e9": "1e9", "15e8": "1500e6", "12e1": "120", "100": "100", "102400": "102400",
    "100Ki": "100Ki", "0.5Gi": "512Mi", "1.5Gi": "1536Mi", "0.1Ki": "102400m", "1.1Gi": "1181116006400m",
    "1000m": "1", "1500m": "1500m", "0.5": "500m", "1k": "1k", "1000k": "1M", "1024": "1024", "1024Ki": "1Mi",
    "2Ei": "2Ei", "1E": "1E", "1000P": "1E", "1n": "1m", "0.1n": "1m", ".5G": "500M",
    "1000Ki": "1000Ki", "1023": "1023", "1u": "1m", "1e30": "1e30", "1e-3": "1e-3", "5.5e3": "5500", "1e3": "1e3",
    "7Ti": "7Ti",
}  # fmt: skip


async def test_quantities_are_stored_in_canonical_form(api: Api) -> None:
    stored = {}
    for number, text in enumerate(QUANTITIES):
        made = await api.create(CLAIMS, claim(f"c{number}", text))
        stored[text] = made["spec"]["resources"]["requests"]["storage"]
    assert stored == QUANTITIES


async def test_a_quantity_may_be_a_number(api: Api) -> None:
    made = await api.create(VOLUMES, volume(api.unique("v"), 3 * 2**30))
    assert made["spec"]["capacity"] == {"storage": str(3 * 2**30)}


@pytest.mark.parametrize("text", ["", "5 Gi", "5gi", "abc", "1e", "--1", "5GiB"])
async def test_what_is_no_quantity(api: Api, text: str) -> None:
    code, status = await api.request("POST", CLAIMS, claim("c", text))
    assert (code, status["reason"]) == (400, "BadRequest")


async def test_defaults_of_a_claim(api: Api) -> None:
    made = await api.create(CLAIMS, claim("c"))
    assert made["spec"]["volumeMode"] == "Filesystem"
    assert made["status"] == {"phase": "Pending"}
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    made = await api.create(CLAIMS, {**claim("d"), "metadata": {"name": "d", "finalizers": ["a.test/x"]}})
    assert made["metadata"]["finalizers"] == ["a.test/x", "kubernetes.io/pvc-protection"]


async def test_defaults_of_a_volume(api: Api) -> None:
    made = await api.create(VOLUMES, volume(api.unique("v")))
    assert made["spec"]["volumeMode"] == "Filesystem"
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert made["status"]["phase"] == "Pending"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]


async def test_defaults_of_a_class(api: Api) -> None:
    made = await api.create(CLASSES, {"metadata": {"name": api.unique("c")}, "provisioner": "driver.test"})
    assert (made["reclaimPolicy"], made["volumeBindingMode"]) == ("Delete", "Immediate")


async def test_defaults_of_namespaces_and_secrets(api: Api) -> None:
    namespace = await api.get(f"/api/v1/namespaces/{api.ns}")
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": api.ns}
    assert (namespace["spec"], namespace["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})
    secret = {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    made = await api.create("/api/v1/namespaces/{ns}/secrets", secret)
    assert (made["type"], made["data"]) == ("Opaque", {"a": "Yg==", "c": "ZA=="})
    assert "stringData" not in made


PVC_SOURCE = {"apiGroup": None, "kind": "PersistentVolumeClaim", "name": "other"}
SNAPSHOT_SOURCE = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "snap"}
POPULATOR = {"apiGroup": "hello.example.com", "kind": "Hello", "name": "world"}


@pytest.mark.parametrize(
    ("given", "source", "reference"),
    [
        pytest.param({"dataSource": PVC_SOURCE}, PVC_SOURCE, PVC_SOURCE, id="claim"),
        pytest.param({"dataSourceRef": PVC_SOURCE}, PVC_SOURCE, PVC_SOURCE, id="claim by reference"),
        pytest.param({"dataSource": SNAPSHOT_SOURCE}, SNAPSHOT_SOURCE, SNAPSHOT_SOURCE, id="snapshot"),
        pytest.param({"dataSourceRef": SNAPSHOT_SOURCE}, SNAPSHOT_SOURCE, SNAPSHOT_SOURCE, id="snapshot by reference"),
        pytest.param({"dataSource": POPULATOR}, None, None, id="populator"),
        pytest.param({"dataSourceRef": POPULATOR}, POPULATOR, POPULATOR, id="populator by reference"),
        pytest.param(
            {"dataSourceRef": {**SNAPSHOT_SOURCE, "namespace": "elsewhere"}},
            None,
            {**SNAPSHOT_SOURCE, "namespace": "elsewhere"},
            id="another namespace",
        ),
    ],
)
async def test_data_sources_are_said_twice(
    api: Api, given: Object, source: Object | None, reference: Object | None
) -> None:
    made = await api.create(CLAIMS, claim("c", **given))
    told = made["spec"].get("dataSource"), made["spec"].get("dataSourceRef")
    assert told == (source, reference)


def without(obj: Object, *path: str) -> Object:
    at = obj
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    return obj


def affinity(required: Any) -> Object:
    return {"nodeAffinity": {"required": required}}


@pytest.mark.parametrize(
    ("path", "obj", "field"),
    [
        (CLAIMS, without(claim("x"), "spec", "accessModes"), "spec.accessModes"),
        (CLAIMS, claim("x", accessModes=["Sometimes"]), "spec.accessModes"),
        (CLAIMS, claim("x", accessModes=["ReadWriteOncePod", "ReadWriteOnce"]), "spec.accessModes"),
        (CLAIMS, claim("x", resources={}), "spec.resources[storage]"),
        (CLAIMS, claim("x", "0"), "spec.resources[storage]"),
        (CLAIMS, claim("x", "-5Gi"), "spec.resources[storage]"),
        (CLAIMS, claim("x", volumeMode="Tape"), "spec.volumeMode"),
        (VOLUMES, without(volume("x"), "spec", "csi"), "spec"),
        (VOLUMES, without(volume("x"), "spec", "accessModes"), "spec.accessModes"),
        (VOLUMES, without(volume("x"), "spec", "capacity"), "spec.capacity"),
        (VOLUMES, volume("x", "0"), "spec.capacity[storage]"),
        (VOLUMES, volume("x", hostPath={"path": "/tmp/x"}), "spec.csi"),
        (VOLUMES, without(volume("x"), "spec", "csi", "volumeHandle"), "spec.csi.volumeHandle"),
        (VOLUMES, without(volume("x"), "spec", "csi", "driver"), "spec.csi.driver"),
        (VOLUMES, volume("x", nodeAffinity={}), "spec.nodeAffinity.required"),
        (VOLUMES, volume("x", **affinity({"nodeSelectorTerms": []})), "spec.nodeAffinity.required.nodeSelectorTerms"),
        (CLASSES, {"metadata": {"name": "x"}}, "provisioner"),
        (CLASSES, {"metadata": {"name": "x"}, "provisioner": "d", "reclaimPolicy": "Never"}, "reclaimPolicy"),
        (CLASSES, {"metadata": {"name": "x"}, "provisioner": "d", "volumeBindingMode": "Later"}, "volumeBindingMode"),
        (CAPACITIES, {"metadata": {"name": "x"}}, "storageClassName"),
        (EVENTS, {"metadata": {"name": "x"}, "involvedObject": {"namespace": "other"}}, "involvedObject.namespace"),
        (EVENTS, {"metadata": {"name": "x"}, "involvedObject": {"kind": "Node"}}, "involvedObject.namespace"),
        ("/apis/storage.k8s.io/v1/csinodes",
         {"metadata": {"name": "x"}, "spec": {"drivers": [{"name": "d"}]}}, "spec.drivers[0].nodeID"),
        ("/apis/storage.k8s.io/v1/volumeattributesclasses", {"metadata": {"name": "x"}, "parameters": {"a": "b"}},
         "driverName"),
        ("/apis/storage.k8s.io/v1/volumeattributesclasses", {"metadata": {"name": "x"}, "driverName": "d"},
         "parameters"),
    ],
)  # fmt: skip
async def test_what_is_refused(api: Api, path: str, obj: Object, field: str) -> None:
    code, status = await api.request("POST", path, obj)
    assert (code, status["reason"]) == (422, "Invalid"), status
    assert field in [cause["field"] for cause in status["details"]["causes"]], status


async def test_terms_may_be_empty_but_not_missing(api: Api) -> None:
    term: Object = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    made = await api.create(VOLUMES, volume(api.unique("v"), **affinity({"nodeSelectorTerms": [term]})))
    assert made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] == [term]


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        pytest.param({"csi": {"driver": "driver.test", "volumeHandle": "other"}}, False, id="handle"),
        pytest.param({"volumeMode": "Block"}, False, id="mode"),
        pytest.param({"nodeAffinity": None}, False, id="affinity taken away"),
        pytest.param({"persistentVolumeReclaimPolicy": "Delete"}, True, id="policy"),
        pytest.param({"capacity": {"storage": "6Gi"}}, True, id="capacity"),
        pytest.param({"claimRef": {"namespace": "default", "name": "c", "uid": "u"}}, True, id="claim"),
        pytest.param({"mountOptions": ["ro"]}, True, id="mount options"),
    ],
)
async def test_what_may_change_in_a_volume(api: Api, changes: Object, allowed: bool) -> None:
    term: Object = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    name = api.unique("v")
    await api.create(VOLUMES, volume(name, **affinity({"nodeSelectorTerms": [term]})))
    media = "application/merge-patch+json"
    code, status = await api.request("PATCH", f"{VOLUMES}/{name}", {"spec": changes}, media=media)
    assert code == (200 if allowed else 422), status


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        pytest.param({"accessModes": ["ReadWriteMany"]}, False, id="modes"),
        pytest.param({"storageClassName": "other"}, False, id="class"),
        pytest.param({"resources": {"requests": {"storage": "6Gi"}}}, False, id="size while unbound"),
        pytest.param({"volumeName": "v"}, True, id="volume"),
        pytest.param({"selector": {"matchLabels": {"a": "b"}}}, False, id="selector"),
    ],
)
async def test_what_may_change_in_a_claim(api: Api, changes: Object, allowed: bool) -> None:
    await api.create(CLAIMS, claim("c"))
    media = "application/merge-patch+json"
    code, status = await api.request("PATCH", f"{CLAIMS}/c", {"spec": changes}, media=media)
    assert code == (200 if allowed else 422), status


@pytest.mark.parametrize(
    "changes", [{"parameters": {"a": "b"}}, {"provisioner": "other"}, {"reclaimPolicy": "Retain"},
                {"volumeBindingMode": "WaitForFirstConsumer"}], ids=str
)  # fmt: skip
async def test_a_class_does_not_change(api: Api, changes: Object) -> None:
    name = api.unique("c")
    await api.create(CLASSES, {"metadata": {"name": name}, "provisioner": "driver.test"})
    media = "application/merge-patch+json"
    assert (await api.request("PATCH", f"{CLASSES}/{name}", changes, media=media))[0] == 422
    patched = await api.patch(f"{CLASSES}/{name}", {"allowVolumeExpansion": True})
    assert patched["allowVolumeExpansion"] is True


async def test_a_capacity_keeps_its_topology(api: Api) -> None:
    made = await api.create(
        CAPACITIES,
        {"metadata": {"generateName": "csisc-"}, "storageClassName": "c", "capacity": "1024Mi",
         "nodeTopology": {"matchLabels": {"zone": "a"}}, "maximumVolumeSize": "500000000"},
    )  # fmt: skip
    assert (made["capacity"], made["maximumVolumeSize"]) == ("1Gi", "500M")
    one = f"{CAPACITIES}/{made['metadata']['name']}"
    for changes in ({"nodeTopology": {"matchLabels": {"zone": "b"}}}, {"storageClassName": "d"}):
        assert (await api.request("PATCH", one, changes, media="application/merge-patch+json"))[0] == 422
    assert (await api.patch(one, {"capacity": "2048Mi"}))["capacity"] == "2Gi"


@pytest.mark.parametrize(
    ("path", "obj"),
    [
        pytest.param(LEASES, {"spec": {"renewTime": "2024-01-01T00:00:00Z"}}, id="a lease to the second"),
        pytest.param(EVENTS, {"involvedObject": {}, "firstTimestamp": "yesterday"}, id="no time at all"),
        pytest.param(EVENTS, {"involvedObject": {}, "eventTime": "2024-01-01T00:00:00Z"}, id="an event to the second"),
    ],
)
async def test_times_are_read(api: Api, path: str, obj: Object) -> None:
    code, status = await api.request("POST", path, {"metadata": {"name": "x"}, **obj})
    assert (code, status["reason"]) == (400, "BadRequest")


async def test_leases_count_microseconds(api: Api) -> None:
    spec = {"renewTime": "2024-01-01T00:00:00.123456Z", "leaseDurationSeconds": 15}
    made = await api.create(LEASES, {"metadata": {"name": "x"}, "spec": spec})
    assert made["spec"] == spec


async def test_events_write_out_their_empty_fields(api: Api) -> None:
    about = {"kind": "PersistentVolumeClaim", "namespace": api.ns, "name": "c"}
    made = await api.create(EVENTS, {"metadata": {"name": "e"}, "involvedObject": about})
    assert made["source"] == {}
    assert [made[name] for name in ("firstTimestamp", "lastTimestamp", "eventTime")] == [None, None, None]
    assert made["reportingComponent"] == made["reportingInstance"] == ""


async def test_events_about_cluster_scoped_objects_live_in_default(api: Api) -> None:
    event = {"metadata": {"name": api.unique("e")}, "involvedObject": {"kind": "PersistentVolume", "name": "v"}}
    await api.create("/api/v1/namespaces/default/events", event)


async def test_a_custom_kind_is_served_once_defined(api: Api) -> None:
    group = f"{api.ns}.test"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    definition = {
        "metadata": {"name": f"things.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
                 "versions": [version]},
    }  # fmt: skip
    made = await api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    assert made["spec"]["names"]["listKind"] == "ThingList"
    things = f"/apis/{group}/v1/namespaces/{{ns}}/things"
    for _ in range(200):  # a real API server takes a moment to serve it
        if (await api.request("GET", things))[0] == 200:
            break
    thing = await api.create(things, {"kind": "Thing", "apiVersion": f"{group}/v1", "metadata": {"name": "t"}, "a": 1})
    assert (thing["a"], thing["metadata"]["generation"]) == (1, 1)
    code, _ = await api.request("POST", things, {"metadata": {"name": "t2"}})
    assert code == 400, "custom resources name their kind"


async def test_nothing_is_made_in_a_namespace_that_ends(api: Api) -> None:
    await api.create(CONFIG_MAPS, config_map("held", finalizers=["a.test/x"]))
    code, namespace = await api.request("DELETE", f"/api/v1/namespaces/{api.ns}")
    assert (code, namespace["status"]["phase"]) == (200, "Terminating")
    code, status = await api.request("POST", CONFIG_MAPS, config_map("late"))
    assert (code, status["reason"]) == (403, "Forbidden")


async def test_snapshots_keep_their_quantities_as_they_are(api: Api) -> None:
    body = {"kind": "VolumeSnapshot", "apiVersion": "snapshot.storage.k8s.io/v1", "metadata": {"name": "s"}, "spec": {}}
    await api.create(SNAPSHOTS, body)
    made = await api.patch(f"{SNAPSHOTS}/s/status", {"status": {"restoreSize": "1024Mi"}})
    assert made["status"]["restoreSize"] == "1024Mi"
