"""Writing, patching and deleting objects: what a real API server answers, and the sandbox with it."""

from typing import Any

import pytest

from tests.sandbox.api.client import (
    CLAIMS,
    CLASSES,
    CONFIG_MAPS,
    JSON_PATCH,
    LEASES,
    MERGE,
    SNAPSHOTS,
    STRATEGIC,
    Api,
    claim,
    config_map,
)

ONE = f"{CONFIG_MAPS}/one"


async def test_a_new_object_gets_what_the_server_owns(api: Api) -> None:
    made = await api.create(CONFIG_MAPS, config_map("one", uid="mine"))
    meta = made["metadata"]
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")
    assert meta["uid"] != "mine"
    assert meta["resourceVersion"].isdigit()
    assert meta["creationTimestamp"].endswith("Z")
    assert meta["namespace"] == api.ns


async def test_a_name_is_taken_once(api: Api) -> None:
    await api.create(CONFIG_MAPS, config_map("one"))
    code, status = await api.request("POST", CONFIG_MAPS, config_map("one"))
    assert (code, status["reason"]) == (409, "AlreadyExists")
    assert status["message"] == 'configmaps "one" already exists'
    assert status["details"] == {"name": "one", "kind": "configmaps"}


async def test_generated_names_differ(api: Api) -> None:
    names = [
        (await api.create(CONFIG_MAPS, {"metadata": {"generateName": "claim-"}}))["metadata"]["name"] for _ in range(3)
    ]
    assert len(set(names)) == 3
    assert all(name.startswith("claim-") and len(name) == len("claim-") + 5 for name in names)


@pytest.mark.parametrize(
    ("metadata", "code", "reason"),
    [
        pytest.param({}, 422, "Invalid", id="no name"),
        pytest.param({"name": "Upper"}, 422, "Invalid", id="upper case"),
        pytest.param({"name": "x" * 254}, 422, "Invalid", id="too long"),
        pytest.param({"name": "a", "labels": {"k": "-bad"}}, 422, "Invalid", id="label value"),
        pytest.param({"name": "a", "labels": {"bad key": "v"}}, 422, "Invalid", id="label key"),
        pytest.param({"name": "a", "annotations": {"bad key": "v"}}, 422, "Invalid", id="annotation key"),
        pytest.param({"name": "a", "finalizers": ["unqualified"]}, 422, "Invalid", id="finalizer"),
        pytest.param({"name": "a", "namespace": "elsewhere"}, 400, "BadRequest", id="other namespace"),
        pytest.param({"name": "a", "resourceVersion": "1"}, 500, None, id="has a version"),
    ],
)
async def test_bad_metadata_is_refused(api: Api, metadata: dict[str, Any], code: int, reason: str | None) -> None:
    answer = await api.request("POST", CONFIG_MAPS, {"metadata": metadata})
    assert (answer[0], answer[1].get("reason")) == (code, reason), answer


async def test_other_kinds_and_unknown_places_are_refused(api: Api) -> None:
    code, status = await api.request(
        "POST", CONFIG_MAPS, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}
    )
    assert (code, status["reason"]) == (400, "BadRequest")
    code, status = await api.request("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a"))
    assert (code, status["reason"], status["message"]) == (404, "NotFound", 'namespaces "nowhere" not found')
    code, status = await api.request("GET", ONE)
    assert (code, status["details"]) == (404, {"name": "one", "kind": "configmaps"})
    assert (await api.request("GET", "/apis/no.such.group/v1/things"))[0] == 404
    assert (await api.request("GET", "/api/v1/nothings"))[0] == 404
    assert (await api.request("PUT", CONFIG_MAPS, config_map("a")))[0] == 405
    assert (await api.request("POST", CONFIG_MAPS, config_map("a"), media="text/plain"))[0] == 415


async def test_put_is_held_to_the_version_it_names(api: Api) -> None:
    first = await api.create(CONFIG_MAPS, config_map("one"))
    second = {**first, "data": {"key": "second"}}
    code, put = await api.request("PUT", ONE, second)
    assert code == 200
    assert int(put["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    code, status = await api.request("PUT", ONE, {**first, "data": {}})
    assert (code, status["reason"]) == (409, "Conflict")
    assert status["message"].startswith(
        'Operation cannot be fulfilled on configmaps "one": the object has been modified'
    )
    code, again = await api.request("PUT", ONE, put)
    assert again["metadata"]["resourceVersion"] == put["metadata"]["resourceVersion"], "nothing changed"
    code, _ = await api.request("PUT", ONE, config_map("one"))
    assert code == 200, "without a version the last writer wins"
    code, status = await api.request("PUT", ONE, config_map("one", uid="another"))
    assert (code, status["reason"]) == (409, "Conflict")
    assert (await api.request("PUT", ONE, config_map("two")))[0] == 400


@pytest.mark.parametrize(
    ("path", "spec"),
    [(LEASES, {"holderIdentity": "me"}), (SNAPSHOTS, {"source": {"persistentVolumeClaimName": "c"}})],
    ids=["Lease", "VolumeSnapshot"],
)
async def test_some_kinds_insist_on_a_version(api: Api, path: str, spec: dict[str, str]) -> None:
    made = await api.create(path, {"metadata": {"name": "a"}, "spec": spec, **_typed(path)})
    del made["metadata"]["resourceVersion"]
    made["spec"]["more"] = "x"
    code, status = await api.request("PUT", f"{path}/a", made)
    assert (code, status["reason"]) == (422, "Invalid")


def _typed(path: str) -> dict[str, str]:
    """Custom resources, unlike built-in ones, must name their kind."""
    return {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot"} if path == SNAPSHOTS else {}


FINALIZERS = ["a.test/one", "b.test/two"]


@pytest.mark.parametrize(
    ("media", "patch", "finalizers"),
    [
        pytest.param(STRATEGIC, {"finalizers": ["c.test/three"]}, ["c.test/three", *FINALIZERS], id="strategic adds"),
        pytest.param(
            STRATEGIC,
            {"finalizers": ["b.test/two", "c.test/three"]},
            [*FINALIZERS, "c.test/three"],
            id="strategic keeps the patch's order",
        ),
        pytest.param(
            STRATEGIC,
            {"finalizers": ["c.test/three"], "$setElementOrder/finalizers": [*FINALIZERS, "c.test/three"]},
            [*FINALIZERS, "c.test/three"],
            id="strategic adds with an order",
        ),
        pytest.param(STRATEGIC, {"finalizers": ["b.test/two"]}, FINALIZERS, id="strategic adds once"),
        pytest.param(
            STRATEGIC, {"$deleteFromPrimitiveList/finalizers": ["a.test/one"]}, ["b.test/two"], id="strategic removes"
        ),
        pytest.param(
            STRATEGIC, {"$deleteFromPrimitiveList/finalizers": ["z.test/none"]}, FINALIZERS, id="strategic removes none"
        ),
        pytest.param(
            STRATEGIC,
            {"$deleteFromPrimitiveList/finalizers": ["a.test/one"], "$setElementOrder/finalizers": ["b.test/two"]},
            ["b.test/two"],
            id="strategic removes with an order",
        ),
        pytest.param(STRATEGIC, {"finalizers": None}, None, id="strategic null"),
        pytest.param(MERGE, {"finalizers": ["c.test/three"]}, ["c.test/three"], id="merge replaces"),
        pytest.param(MERGE, {"finalizers": None}, None, id="merge null"),
        pytest.param(MERGE, {"finalizers": []}, None, id="merge empty"),
    ],
)
async def test_patching_finalizers(api: Api, media: str, patch: dict[str, Any], finalizers: list[str] | None) -> None:
    await api.create(CONFIG_MAPS, config_map("one", finalizers=FINALIZERS))
    patched = await api.patch(ONE, {"metadata": patch}, media)
    assert patched["metadata"].get("finalizers") == finalizers


async def test_patching_maps_and_owners(api: Api) -> None:
    await api.create(CONFIG_MAPS, config_map("one", annotations={"a.test/x": "1", "a.test/y": "2"}))
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1"}
    for media in (STRATEGIC, MERGE):
        patched = await api.patch(ONE, {"metadata": {"annotations": {"a.test/x": None, "a.test/z": media}}}, media)
        assert patched["metadata"]["annotations"] == {"a.test/y": "2", "a.test/z": media}
    await api.patch(ONE, {"metadata": {"ownerReferences": [owner]}}, STRATEGIC)
    both = await api.patch(ONE, {"metadata": {"ownerReferences": [{**owner, "uid": "u2", "name": "q"}]}}, STRATEGIC)
    assert [entry["uid"] for entry in both["metadata"]["ownerReferences"]] == ["u2", "u1"]
    one = {"metadata": {"ownerReferences": [{"$patch": "delete", "uid": "u1"}]}}
    left = await api.patch(ONE, one, STRATEGIC)
    assert [entry["uid"] for entry in left["metadata"]["ownerReferences"]] == ["u2"]


async def test_json_patch(api: Api) -> None:
    await api.create(CONFIG_MAPS, config_map("one"))
    patched = await api.patch(
        ONE,
        [
            {"op": "test", "path": "/data/key", "value": "value"},
            {"op": "add", "path": "/data/more", "value": "x"},
            {"op": "move", "from": "/data/key", "path": "/data/moved"},
            {"op": "add", "path": "/metadata/annotations", "value": {"a.test/b": "c"}},
        ],
        JSON_PATCH,
    )
    assert patched["data"] == {"more": "x", "moved": "value"}
    assert patched["metadata"]["annotations"] == {"a.test/b": "c"}
    for operation in (
        {"op": "test", "path": "/data/more", "value": "y"},
        {"op": "remove", "path": "/data/missing"},
        {"op": "replace", "path": "/data/missing/deeper", "value": "y"},
    ):
        code, status = await api.request("PATCH", ONE, [operation], media=JSON_PATCH)
        assert (code, status["reason"]) == (422, "Invalid"), operation
    assert (await api.request("PATCH", ONE, {"not": "a list"}, media=JSON_PATCH))[0] == 400


async def test_refused_patches(api: Api) -> None:
    made = await api.create(CONFIG_MAPS, config_map("one"))
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"x": "y"}}
    for media in (MERGE, STRATEGIC):
        code, status = await api.request("PATCH", ONE, stale, media=media)
        assert (code, status["reason"]) == (409, "Conflict")
    code, status = await api.request("PATCH", ONE, {"metadata": {"uid": "other"}}, media=MERGE)
    assert (code, status["reason"]) == (422, "Invalid")
    assert (await api.request("PATCH", ONE, {}, media="application/json"))[0] == 415
    assert (await api.request("PATCH", f"{CONFIG_MAPS}/none", {"data": {}}, media=MERGE))[0] == 404
    assert (await api.get(ONE))["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_custom_resources_know_no_strategic_patch(api: Api) -> None:
    await api.create(SNAPSHOTS, {"metadata": {"name": "s"}, "spec": {}, **_typed(SNAPSHOTS)})
    code, status = await api.request("PATCH", f"{SNAPSHOTS}/s", {"metadata": {}}, media=STRATEGIC)
    assert (code, status["reason"]) == (415, "UnsupportedMediaType")


async def test_deletion_waits_for_finalizers(api: Api) -> None:
    await api.create(CONFIG_MAPS, config_map("one", finalizers=["a.test/one"]))
    code, marked = await api.request("DELETE", ONE)
    assert (code, marked["kind"]) == (200, "ConfigMap")
    assert marked["metadata"]["deletionTimestamp"].endswith("Z")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 0
    code, again = await api.request("DELETE", ONE)
    assert again["metadata"]["resourceVersion"] == marked["metadata"]["resourceVersion"]
    code, status = await api.request("PATCH", ONE, {"metadata": {"finalizers": ["b.test/x"]}}, media=STRATEGIC)
    assert (code, status["reason"], status["details"]["causes"][0]["field"]) == (422, "Invalid", "metadata.finalizers")
    last = await api.patch(ONE, {"metadata": {"finalizers": None, "deletionTimestamp": None}})
    assert "deletionTimestamp" in last["metadata"], "a deletion cannot be taken back"
    assert (await api.request("GET", ONE))[0] == 404


async def test_deletion_under_preconditions(api: Api) -> None:
    made = await api.create(CONFIG_MAPS, config_map("one"))
    for precondition in ({"uid": "other"}, {"resourceVersion": "1"}):
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": precondition}
        code, status = await api.request("DELETE", ONE, options)
        assert (code, status["reason"]) == (409, "Conflict")
    uid = made["metadata"]["uid"]
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
    code, status = await api.request("DELETE", ONE, options)
    assert (code, status["status"]) == (200, "Success")
    assert status["details"] == {"name": "one", "kind": "configmaps", "uid": uid}
    assert (await api.request("DELETE", ONE))[0] == 404


async def test_dry_runs_leave_nothing_behind(api: Api) -> None:
    code, made = await api.request("POST", CONFIG_MAPS, config_map("one"), dryRun="All")
    assert (code, made["metadata"]["name"]) == (201, "one")
    assert (await api.request("GET", ONE))[0] == 404


async def test_deleting_a_collection(api: Api) -> None:
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        await api.create(CONFIG_MAPS, config_map(name, labels={"colour": colour}))
    code, _ = await api.request("DELETE", CONFIG_MAPS, labelSelector="colour=red")
    assert code == 200
    left = await api.get(CONFIG_MAPS)
    assert "b" in [item["metadata"]["name"] for item in left["items"]]
    assert not {"a", "c"} & {item["metadata"]["name"] for item in left["items"]}


async def test_status_and_spec_are_written_apart(api: Api) -> None:
    made = await api.create(CLAIMS, {**claim("one"), "status": {"phase": "Bound"}})
    assert made["status"] == {"phase": "Pending"}
    one = f"{CLAIMS}/one"
    patched = await api.patch(f"{one}/status", {"status": {"phase": "Lost"}, "spec": {"volumeName": "x"}})
    assert patched["status"]["phase"] == "Lost"
    assert "volumeName" not in patched["spec"]
    patched = await api.patch(one, {"status": {"phase": "Bound"}, "metadata": {"labels": {"a": "b"}}})
    assert patched["status"]["phase"] in ("Lost", "Pending"), "a binder may have told it anew"
    assert patched["metadata"]["labels"] == {"a": "b"}
    assert (await api.get(f"{one}/status"))["kind"] == "PersistentVolumeClaim"
    assert (await api.request("GET", f"{CONFIG_MAPS}/one/status"))[0] == 404


async def test_the_status_of_custom_resources(api: Api) -> None:
    path = f"{SNAPSHOTS}/s"
    made = await api.create(SNAPSHOTS, {"metadata": {"name": "s"}, "spec": {}, "status": {"x": 1}, **_typed(SNAPSHOTS)})
    assert "status" not in made
    assert made["metadata"]["generation"] == 1
    patch = {"status": {"readyToUse": True}, "spec": {"a": "b"}, "metadata": {"labels": {"a": "b"}}}
    patched = await api.patch(f"{path}/status", patch)
    assert patched["status"] == {"readyToUse": True}
    assert patched["spec"] == {}
    assert "labels" not in patched["metadata"]
    patched = await api.patch(path, {"spec": {"a": "b"}, "status": {"readyToUse": False}})
    assert (patched["spec"], patched["status"]) == ({"a": "b"}, {"readyToUse": True})
    assert patched["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("path", "obj", "returned"),
    [
        (CONFIG_MAPS, {}, "Status"),
        (LEASES, {"spec": {}}, "Status"),
        ("/api/v1/namespaces/{ns}/secrets", {}, "Status"),
        ("/api/v1/namespaces/{ns}/serviceaccounts", {}, "ServiceAccount"),
        (CLASSES, {"provisioner": "driver.test"}, "StorageClass"),
        ("/apis/storage.k8s.io/v1/csinodes", {"spec": {"drivers": []}}, "CSINode"),
        ("/apis/storage.k8s.io/v1/csidrivers", {"spec": {}}, "CSIDriver"),
        ("/apis/storage.k8s.io/v1/volumeattributesclasses", {"driverName": "d", "parameters": {"a": "b"}},
         "VolumeAttributesClass"),
        ("/apis/storage.k8s.io/v1/volumeattachments",
         {"spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}, "VolumeAttachment"),
        ("/apis/storage.k8s.io/v1/namespaces/{ns}/csistoragecapacities", {"storageClassName": "c"}, "Status"),
        (SNAPSHOTS, {"spec": {}, "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot"}, "Status"),
        ("/api/v1/nodes", {}, "Status"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", {}, "Status"),
    ],
)  # fmt: skip
async def test_what_a_deletion_answers_with(api: Api, path: str, obj: dict[str, Any], returned: str) -> None:
    name = api.unique("x")
    await api.create(path, {"metadata": {"name": name}, **obj})
    code, answer = await api.request("DELETE", f"{path}/{name}")
    assert (code, answer["kind"]) == (200, returned)
