"""Names out of objects are not paths: what no object can be called is refused before anything is asked for by it."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import attributes_class, secrets, sources
from csi_provisioner.planning.draft import DataSource
from csi_provisioner.planning.refusal import Refusal
from tests.planning.objects import CLONE, SNAPSHOT, but, claim, draft, driver, settings, volume
from tests.planning.test_clones import source
from tests.planning.test_data_sources import GROUP
from tests.planning.test_snapshots import snapshot

WRONG = [
    "..", ".", "../x", "../../elsewhere/volumesnapshots/victim", "a/b", "a%2fb", "%2e%2e", "..\\x", "a\\b", "a?b",
    "a#b", "a b", "A", "a;b", "a\n", "a\0", "\u2028", "-a", "a..b", "a" * 254,
]  # fmt: skip
DELETION = "volume.kubernetes.io/provisioner-deletion-secret"


def _data_source(kind: str, group: str | None, name: str, namespace: str) -> tuple[str, str]:
    found = DataSource(kind, name, namespace, group)
    sources.check_kind(found, claim())
    return found.name, found.namespace


def _deletion_secret(name: str, namespace: str) -> tuple[str, str]:
    annotated = volume({f"{DELETION}-name": name, f"{DELETION}-namespace": namespace})
    found = secrets.deletion_reference(annotated, lambda _name: None, driver(), migrated=False).reference
    assert found is not None
    return found.name, found.namespace


def _content(name: str) -> str:
    return sources.check_snapshot(
        draft(claim(dataSource=SNAPSHOT)), but(snapshot(), "status.boundVolumeSnapshotContentName", name)
    )


def _volume(name: str) -> str:
    return sources.check_clone_claim(draft(claim(dataSource=CLONE)), but(source(), "spec.volumeName", name))


def _attributes_class(name: str) -> str:
    found = attributes_class.wanted(claim(volumeAttributesClassName=name), settings(volume_attributes_class=True))
    assert found is not None
    return found


NAMES: dict[str, Callable[[str], str]] = {
    "snapshot": lambda name: _data_source("VolumeSnapshot", GROUP, name, "shop")[0],
    "clone": lambda name: _data_source("PersistentVolumeClaim", None, name, "shop")[0],
    "content": _content,
    "volume": _volume,
    "attributes-class": _attributes_class,
    "deletion-secret": lambda name: _deletion_secret(name, "shop")[0],
}
NAMESPACES: dict[str, Callable[[str], str]] = {
    "snapshot": lambda namespace: _data_source("VolumeSnapshot", GROUP, "s", namespace)[1],
    "clone": lambda namespace: _data_source("PersistentVolumeClaim", None, "s", namespace)[1],
    "deletion-secret": lambda namespace: _deletion_secret("s", namespace)[1],
}


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("place", NAMES)
def test_a_name_that_no_object_can_have_is_refused(place: str, wrong: str) -> None:
    with pytest.raises(Refusal) as refused:
        NAMES[place](wrong)
    assert refused.value.state is (State.FINISHED if place == "deletion-secret" else State.NO_CHANGE)
    assert repr(wrong) in refused.value.message + refused.value.detail


@pytest.mark.parametrize("wrong", [*WRONG, "a.b", "a" * 64], ids=repr)
@pytest.mark.parametrize("place", NAMESPACES)
def test_so_is_a_namespace(place: str, wrong: str) -> None:
    with pytest.raises(Refusal) as refused:
        NAMESPACES[place](wrong)
    assert repr(wrong) in refused.value.message


def test_the_source_of_a_populator_may_be_called_whatever_it_likes() -> None:
    with pytest.raises(Refusal) as refused:
        _data_source("Backup", "example.com", "../monday", "shop")
    assert refused.value.ignored


LIKELY = st.text(st.sampled_from("ab.-/%\\ ~é"), min_size=1, max_size=8) | st.text(min_size=1, max_size=8)


@given(LIKELY, st.sampled_from([*NAMES.values(), *NAMESPACES.values()]))
def test_what_is_let_through_is_one_segment_of_a_path_as_it_stands(name: str, place: Callable[[str], str]) -> None:
    try:
        found = place(name)
    except Refusal:
        return
    assert quote(found, safe="") == found == name
    assert found.strip(".") == found


def test_a_foreign_volume_is_as_vague_as_ever() -> None:
    with pytest.raises(Refusal) as refused:
        _volume("../x")
    assert "../x" not in refused.value.message


def test_the_namespace_of_a_source_comes_from_its_reference() -> None:
    named = k8s.TypedReference(kind="PersistentVolumeClaim", name="s", namespace="../far")
    grant = k8s.ReferenceGrant(
        metadata=k8s.ObjectMeta(name="g", namespace="../far"),
        spec=k8s.ReferenceGrantSpec(
            from_=[k8s.ReferenceGrantFrom(kind="PersistentVolumeClaim", namespace="shop")],
            to=[k8s.ReferenceGrantTo(kind="PersistentVolumeClaim")],
        ),
    )
    found = sources.normalise(claim(dataSourceRef=named), settings(cross_namespace=True), [grant])
    assert found is not None
    with pytest.raises(Refusal):
        sources.check_kind(found, claim())
