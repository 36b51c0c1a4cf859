"""An index beside a store: what it finds, and that it forgets."""

import pytest
from lightkube.core.resource import Resource

from csi_provisioner.kube.index import Index
from csi_provisioner.kube.store import Store
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from tests.kube.objects import claim


def of_class(name: str, class_name: str | None, version: int, uid: str = "") -> PersistentVolumeClaim:
    obj = claim(name, version, uid=uid)
    obj.spec.storageClassName = class_name
    return obj


@pytest.fixture
def index() -> Index[PersistentVolumeClaim]:
    return Index(lambda obj: obj.spec.storageClassName)


@pytest.fixture
def store(index: Index[PersistentVolumeClaim]) -> Store[PersistentVolumeClaim]:
    store: Store[PersistentVolumeClaim] = Store()
    store.subscribe(index.saw)
    for name, class_name in (("a", "fast"), ("b", "fast"), ("c", ""), ("d", None)):
        store.put(of_class(name, class_name, 5))
    return store


def names(index: Index[PersistentVolumeClaim], group: str) -> list[str]:
    return [obj.metadata.name for obj in index.of(group)]


def test_an_index_finds_what_belongs_together(index: Index[PersistentVolumeClaim], store: Store[Resource]) -> None:
    assert [names(index, group) for group in ("fast", "", "slow")] == [["a", "b"], ["c"], []]


def test_an_index_follows_changes_and_forgets(index: Index[PersistentVolumeClaim], store: Store[Resource]) -> None:
    store.put(of_class("a", "slow", 11))
    store.put(of_class("b", "slow", 12, uid="second"))
    store.drop(of_class("c", "", 13))
    store.put(of_class("d", "slow", 14))
    store.put(of_class("d", None, 15))
    store.replay("ns/a")
    assert [names(index, group) for group in ("fast", "", "slow")] == [[], [], ["b", "a"]]
    assert list(index._groups) == ["slow"]
