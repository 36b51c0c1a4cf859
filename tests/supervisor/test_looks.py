"""A list that is read by outlines leaves the caches as one whose objects are decoded whole."""

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.kube import answer
from csi_provisioner.kube.answer import wanted
from csi_provisioner.kube.outline import Look
from csi_provisioner.kube.store import Fresh
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import (
    BETA_STORAGE_PROVISIONER,
    CLONE_FINALIZER,
    MIGRATED_TO,
    PROVISIONED_BY,
    STORAGE_PROVISIONER,
    VOLUME_FINALIZER,
)
from csi_provisioner.supervisor.caches import caches_for, looks

FACTS = DriverFacts("ours", in_tree_name="old")
OURS = {STORAGE_PROVISIONER: "ours"}
names = st.sampled_from(["ours", "old", "theirs", ""])


def some(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def annotated(*keys: str) -> st.SearchStrategy[dict[str, str]]:
    return some(**dict.fromkeys(keys, names))


def meta(finalizer: str, *keys: str) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.lists(st.sampled_from([finalizer, "kubernetes.io/protection"]), max_size=2)
    owners = st.lists(st.just({"kind": "StatefulSet", "name": "set", "uid": "1", "controller": True}), max_size=1)
    return some(
        annotations=annotated(*keys) | st.none(),
        labels=some(app=names) | st.none(),
        finalizers=lists,
        ownerReferences=owners,
        deletionTimestamp=st.just("2026-01-01T00:00:00Z"),
    )


sources = some(kind=st.sampled_from(["PersistentVolumeClaim", "VolumeSnapshot", "Other"]), name=st.just("a"))
statuses = some(phase=st.sampled_from(["", "Pending", "Bound", "Lost", "Released"]))
claims = some(
    metadata=meta(CLONE_FINALIZER, STORAGE_PROVISIONER, BETA_STORAGE_PROVISIONER, MIGRATED_TO),
    spec=some(volumeName=st.sampled_from(["", "pv"]), dataSource=sources, dataSourceRef=sources),
    status=statuses,
)
volumes = some(
    metadata=meta(VOLUME_FINALIZER, PROVISIONED_BY, MIGRATED_TO),
    spec=some(
        csi=some(driver=names, volumeHandle=st.just("h")),
        persistentVolumeReclaimPolicy=st.sampled_from(["Delete", "Retain"]),
    ),
    status=statuses,
)


def store_of(kind: type[Any]) -> Any:
    caches = caches_for(FACTS, None, holds_claim=lambda _uid: False, holds_volume=lambda _name: False)
    return caches.claims if kind is PersistentVolumeClaim else caches.volumes


def listed(
    kind: type[Any], objects: list[dict[str, Any]], look: Look[Any] | None, store: Any = None, version: str = "7"
) -> Fresh[Any]:
    store = store or store_of(kind)
    items = [dict(each) for each in objects]
    for number, each in enumerate(items):
        where = {"namespace": "ns"} if kind is PersistentVolumeClaim else {}
        known = {"name": f"n-{number}", "uid": f"{number:08}-0000-4000-8000-000000000000", "resourceVersion": version}
        each["metadata"] = {**known, **where, **each.get("metadata", {})}
    body = json.dumps({"metadata": {"resourceVersion": "9"}, "items": items}).encode()
    page = answer.page(body, kind, wanted("list", kind, "", "*"), None, look)
    assert page.unreadable == {}
    fresh: Fresh[Any] = {}
    for obj in page.items:
        store.admit(obj, fresh)
    store.pass_over(page.others, fresh)
    return fresh


@given(st.lists(claims, max_size=4))
def test_of_claims_the_same_is_kept(objects: list[dict[str, Any]]) -> None:
    assert listed(PersistentVolumeClaim, objects, looks(FACTS)[0]) == listed(PersistentVolumeClaim, objects, None)


@given(st.lists(volumes, max_size=4))
def test_of_volumes_the_same_is_kept(objects: list[dict[str, Any]]) -> None:
    assert listed(PersistentVolume, objects, looks(FACTS)[1]) == listed(PersistentVolume, objects, None)


def followed(kind: type[Any], lists: list[list[dict[str, Any]]], look: Look[Any] | None) -> Any:
    """What is there after these lists, one after the other, and what handlers heard."""
    store, told = store_of(kind), list[tuple[str, bool, bool]]()
    store.subscribe(lambda key, old, new: told.append((key, old is None, new is None)))
    for version, objects in zip(("7", "27"), lists, strict=True):
        store.tell(store.replace(listed(kind, objects, look, store, version), version + "9"))
        store.cool(list(store.warm))
    there = {key: (key in store, store.get(key), store.is_foreign(key)) for key in ("n-0", "n-1", "ns/n-0", "ns/n-1")}
    return there, sorted(told), len(store), sorted(map(bytes, store.notes()))


@given(st.tuples(st.lists(claims, max_size=3), st.lists(claims, max_size=3)))
def test_of_claims_listed_again_the_same_is_told(lists: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    look, _ = looks(FACTS)
    assert followed(PersistentVolumeClaim, [*lists], look) == followed(PersistentVolumeClaim, [*lists], None)


@given(st.tuples(st.lists(volumes, max_size=3), st.lists(volumes, max_size=3)))
def test_of_volumes_listed_again_the_same_is_told(lists: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    _, look = looks(FACTS)
    assert followed(PersistentVolume, [*lists], look) == followed(PersistentVolume, [*lists], None)


@pytest.mark.parametrize("look", [looks(FACTS)[1], None], ids=["by outlines", "whole"])
def test_volumes_that_are_another_drivers_now_are_told_as_gone(look: Look[Any] | None) -> None:
    def volume(driver: str, phase: str) -> dict[str, Any]:
        meta = {"annotations": {PROVISIONED_BY: driver}, "finalizers": [VOLUME_FINALIZER]}
        spec = {"csi": {"driver": driver, "volumeHandle": "h"}, "persistentVolumeReclaimPolicy": "Delete"}
        return {"metadata": meta, "spec": spec, "status": {"phase": phase}}

    lists = [[volume(driver, "Released"), volume(driver, "Bound")] for driver in ("ours", "theirs")]
    there, told, count, notes = followed(PersistentVolume, lists, look)
    assert [there[name] for name in ("n-0", "n-1")] == [(True, None, True)] * 2
    assert [key for key, _, is_gone in told if is_gone] == ["n-0", "n-1"]
    assert (count, notes) == (0, [])


def every(*keys: str) -> list[dict[str, str]]:
    """All annotations that there can be of these."""
    values = (None, "ours", "old", "theirs", "")
    return [
        {key: value for key, value in zip(keys, chosen, strict=True) if value is not None}
        for chosen in product(values, repeat=len(keys))
    ]


def test_each_way_of_naming_the_driver_counts_in_a_bound_claim() -> None:
    objects = [
        {"metadata": {"annotations": annotations}, "status": {"phase": "Bound"}}
        for annotations in every(STORAGE_PROVISIONER, BETA_STORAGE_PROVISIONER, MIGRATED_TO)
    ]
    assert listed(PersistentVolumeClaim, objects, looks(FACTS)[0]) == listed(PersistentVolumeClaim, objects, None)


def test_each_way_of_naming_the_driver_counts_in_a_volume() -> None:
    objects = [
        {"metadata": {"annotations": annotations}, "spec": {"csi": {"driver": driver, "volumeHandle": "h"}}}
        for annotations in every(PROVISIONED_BY, MIGRATED_TO)
        for driver in ("ours", "old", "theirs", "")
    ]
    assert listed(PersistentVolume, objects, looks(FACTS)[1]) == listed(PersistentVolume, objects, None)


def page_of(*items: dict[str, Any]) -> answer.Page[PersistentVolumeClaim]:
    body = json.dumps({"metadata": {"resourceVersion": "9"}, "items": items}).encode()
    asked = wanted("list", PersistentVolumeClaim, "", "*")
    return answer.page(body, PersistentVolumeClaim, asked, None, looks(FACTS)[0])


def item(name: str, annotations: dict[str, str], **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "annotations": annotations}
    return {"metadata": meta, "status": {"phase": "Bound"}, **more}


def test_another_drivers_bound_claim_is_not_decoded() -> None:
    page = page_of(item("theirs", {STORAGE_PROVISIONER: "theirs"}), item("ours", OURS))
    assert [outline.metadata.name for outline in page.others] == ["theirs"]
    assert [claim.metadata.name for claim in page.items] == ["ours"]


@pytest.mark.parametrize("spec", [{"volumeName": 5}, None, []], ids=["field", "null", "list"])
def test_one_of_ours_that_cannot_be_decoded_is_told_of_by_its_key(spec: object) -> None:
    page = page_of(item("odd", OURS, spec=spec), item("ours", OURS))
    assert list(page.unreadable) == ["ns/odd"]
    assert "$.spec" in page.unreadable["ns/odd"]
    assert [claim.metadata.name for claim in page.items] == ["ours"]


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("annotations", {**OURS, "x": 5}, "at `$.metadata.annotations[...]`"),
        ("annotations", {STORAGE_PROVISIONER: 5}, "at `$.metadata.annotations[...]`"),
        ("annotations", [], "at `$.metadata.annotations`"),
        ("labels", {"app": 5}, "at `$.metadata.labels[...]`"),
        ("ownerReferences", [{"name": 5}], "at `$.metadata.ownerReferences[0].name`"),
    ],
)
def test_metadata_that_cannot_be_decoded_is_told_of_by_its_place(field: str, value: object, where: str) -> None:
    odd = item("odd", OURS)
    odd["metadata"][field] = value
    page = page_of(odd, item("ours", OURS))
    assert page.unreadable["ns/odd"].endswith(where)
    assert [claim.metadata.name for claim in page.items] == ["ours"]


@pytest.mark.parametrize(("field", "value"), [("annotations", {STORAGE_PROVISIONER: "theirs", "x": 5}), ("labels", [])])
def test_of_another_drivers_claim_such_metadata_is_not_looked_at(field: str, value: object) -> None:
    odd = item("odd", {STORAGE_PROVISIONER: "theirs"})
    odd["metadata"][field] = value
    page = page_of(odd)
    assert page.unreadable == {}
    assert [outline.metadata.name for outline in page.others] == ["odd"]
