"""provision.md 8.1, 8.2 and 12: which source a claim names, and its protection while it is used."""

from typing import Any

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import sources
from csi_provisioner.planning.draft import DataSource
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.sources import Readers
from tests.planning.objects import CLONE, SETTINGS, SNAPSHOT, UID, claim, draft, reference, settings

CROSSING = settings(cross_namespace=True)
GROUP = "snapshot.storage.k8s.io"
FINALIZER = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        pytest.param({}, None, id="8.1-3 none"),
        pytest.param({"dataSource": CLONE}, DataSource("PersistentVolumeClaim", "src", "shop"), id="8.1-1 dataSource"),
        pytest.param(
            {"dataSource": CLONE, "dataSourceRef": reference("Hello", namespace="far")},
            DataSource("PersistentVolumeClaim", "src", "shop"),
            id="8.1-1 dataSourceRef is then ignored",
        ),
        pytest.param({"dataSourceRef": SNAPSHOT}, DataSource("VolumeSnapshot", "src", "shop", GROUP), id="8.1-2 ref"),
        pytest.param(
            {"dataSourceRef": reference("PersistentVolumeClaim", namespace="")},
            DataSource("PersistentVolumeClaim", "src", "shop"),
            id="Q9 an empty namespace is none",
        ),
    ],
)
@pytest.mark.parametrize("options", [SETTINGS, CROSSING], ids=["gate off", "gate on"])
def test_normalise(fields: dict[str, Any], source: DataSource | None, options: Any) -> None:
    assert sources.normalise(claim(**fields), options, ()) == source


def test_a_foreign_namespace_needs_the_gate() -> None:
    """provision.md 8.1.2."""
    it = claim(dataSourceRef=reference("PersistentVolumeClaim", namespace="far"))
    with pytest.raises(Refusal, match="CrossNamespaceVolumeDataSource") as refused:
        sources.normalise(it, SETTINGS, (grant(),))
    assert refused.value.state is State.FINISHED


def test_the_own_namespace_named_needs_no_grant() -> None:
    """provision.md 8.1."""
    it = claim(dataSourceRef=reference("PersistentVolumeClaim", namespace="shop"))
    assert sources.normalise(it, CROSSING, ()) == DataSource("PersistentVolumeClaim", "src", "shop")


def grant(namespace: str = "far", froms: Any = None, tos: Any = None) -> k8s.ReferenceGrant:
    froms = [("", "PersistentVolumeClaim", "shop")] if froms is None else froms
    tos = [("", "PersistentVolumeClaim", None)] if tos is None else tos
    return k8s.ReferenceGrant(
        metadata=k8s.ObjectMeta(name="g", namespace=namespace),
        spec=k8s.ReferenceGrantSpec(
            from_=[k8s.ReferenceGrantFrom(*entry) for entry in froms],
            to=[k8s.ReferenceGrantTo(*entry) for entry in tos],
        ),
    )


FROM_OTHER = [("", "PersistentVolumeClaim", "other")]
FROM_GROUP = [("apps", "PersistentVolumeClaim", "shop")]
FROM_KIND = [("", "Pod", "shop")]
TO_SNAPSHOT = [(GROUP, "VolumeSnapshot", None)]


@pytest.mark.parametrize(
    ("kind", "group", "grants", "allowed"),
    [
        pytest.param("PersistentVolumeClaim", None, [grant()], True, id="8.1 nil group is the empty one"),
        pytest.param("PersistentVolumeClaim", "", [grant()], True, id="8.1 empty group"),
        pytest.param(
            "PersistentVolumeClaim", None, [grant(tos=[("", "PersistentVolumeClaim", "")])], True, id="8.1 empty name"
        ),
        pytest.param(
            "PersistentVolumeClaim", None, [grant(tos=[("", "PersistentVolumeClaim", "src")])], True, id="8.1 name"
        ),
        pytest.param("VolumeSnapshot", GROUP, [grant(tos=TO_SNAPSHOT)], True, id="8.1 snapshot"),
        pytest.param("VolumeSnapshot", GROUP, [grant(), grant(tos=TO_SNAPSHOT)], True, id="8.1 any grant"),
        pytest.param("PersistentVolumeClaim", None, [], False, id="8.1 no grant"),
        pytest.param("PersistentVolumeClaim", None, [grant("shop")], False, id="8.1 grant of another namespace"),
        pytest.param("PersistentVolumeClaim", None, [grant(froms=FROM_OTHER)], False, id="8.1 from namespace"),
        pytest.param("PersistentVolumeClaim", None, [grant(froms=FROM_GROUP)], False, id="8.1 from group"),
        pytest.param("PersistentVolumeClaim", None, [grant(froms=FROM_KIND)], False, id="8.1 from kind"),
        pytest.param(
            "PersistentVolumeClaim", None, [grant(tos=[("", "PersistentVolumeClaim", "x")])], False, id="8.1 to name"
        ),
        pytest.param("PersistentVolumeClaim", None, [grant(tos=TO_SNAPSHOT)], False, id="8.1 to kind"),
        pytest.param("VolumeSnapshot", "other", [grant(tos=TO_SNAPSHOT)], False, id="8.1 to group"),
        pytest.param("PersistentVolumeClaim", None, [grant(froms=[])], False, id="8.1 empty from"),
        pytest.param("PersistentVolumeClaim", None, [grant(tos=[])], False, id="8.1 empty to"),
        pytest.param(
            "PersistentVolumeClaim", None, [grant(froms=[]), grant(tos=[])], False, id="8.1 both in the same grant"
        ),
    ],
)
def test_grants(kind: str, group: str | None, grants: list[k8s.ReferenceGrant], allowed: bool) -> None:
    it = claim(dataSourceRef=reference(kind, group=group, namespace="far"))
    if allowed:
        assert sources.normalise(it, CROSSING, grants) == DataSource(kind, "src", "far", group)
        return
    with pytest.raises(Refusal, match=f"shop/a may not use {kind} far/src") as refused:
        sources.normalise(it, CROSSING, grants)
    assert refused.value.state is State.FINISHED


# ---- kinds (8.2)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param(DataSource("VolumeSnapshot", "", "shop", GROUP), "has no name", id="8.2 name empty"),
        pytest.param(DataSource("MyPopulator", "", "shop"), "has no name", id="8.2 name before kind"),
        pytest.param(DataSource("VolumeSnapshot", "s", "shop", "x"), "group 'x'", id="8.2 snapshot of another group"),
        pytest.param(DataSource("VolumeSnapshot", "s", "shop"), "group ''", id="8.2 snapshot without group"),
    ],
)
def test_wrong_kinds(source: DataSource, says: str) -> None:
    with pytest.raises(Refusal, match=says) as refused:
        sources.check_kind(source, claim())
    assert refused.value.state is State.FINISHED


def test_a_populators_claim_is_ignored_with_an_event_p19_sources_1() -> None:
    """provision.md 8.2."""
    with pytest.raises(Refusal) as ignored:
        sources.check_kind(DataSource("MyPopulator", "x", "shop", "acme.test"), claim())
    assert ignored.value.ignored
    assert ignored.value.state is State.FINISHED
    assert ignored.value.event == "Assuming an external populator will provision the volume"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(DataSource("VolumeSnapshot", "s", "shop", GROUP), id="8.2 snapshot"),
        pytest.param(DataSource("PersistentVolumeClaim", "s", "shop"), id="8.2 claim"),
        pytest.param(
            DataSource("PersistentVolumeClaim", "s", "shop", "x"), id="8.2 the group of a claim is not looked at"
        ),
    ],
)
def test_known_kinds(source: DataSource) -> None:
    sources.check_kind(source, claim())


# ---- protection (9.6, 12)


def test_forbidden_on_a_snapshot_is_tolerated_p19_sources_7() -> None:
    """provision.md 12.1."""
    assert "shop/src is used without protection" in sources.unprotected(draft(claim(dataSource=SNAPSHOT)), 403, "no")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        pytest.param(CLONE, 403, id="12.1 clone forbidden"),
        pytest.param(CLONE, 409, id="12.1 clone conflict"),
        pytest.param(SNAPSHOT, 409, id="12.1 snapshot conflict"),
        pytest.param(SNAPSHOT, 0, id="12.1 snapshot, no answer"),
    ],
)
def test_a_finalizer_that_cannot_be_written_is_refused(source: k8s.TypedReference, code: int) -> None:
    """provision.md 12.1."""
    with pytest.raises(Refusal, match=f"{source.kind} shop/src .*finalizer.*: no") as refused:
        sources.unprotected(draft(claim(dataSource=source)), code, "no")
    assert refused.value.state is State.NO_CHANGE


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        pytest.param({"dataSource": SNAPSHOT}, "src", id="9.6 snapshot"),
        pytest.param({"dataSource": CLONE}, None, id="9.6 clone"),
        pytest.param({"dataSourceRef": SNAPSHOT}, None, id="9.6 ref alone is left to the sweep"),
        pytest.param({}, None, id="9.6 none"),
    ],
)
def test_snapshot_to_release(fields: dict[str, Any], name: str | None) -> None:
    assert sources.snapshot_to_release(claim(**fields)) == name


@pytest.mark.parametrize(
    ("phase", "fields", "namespace", "pending"),
    [
        pytest.param("Pending", {"dataSource": CLONE}, "shop", True, id="12.2 pending clone, p19-sources-9"),
        pytest.param("Bound", {"dataSource": CLONE}, "shop", False, id="12.2 bound"),
        pytest.param(None, {"dataSource": CLONE}, "shop", False, id="12.2 empty phase does not block"),
        pytest.param("Pending", {"dataSourceRef": CLONE}, "shop", False, id="12.2 dataSourceRef does not count"),
        pytest.param("Pending", {"dataSource": CLONE}, "far", False, id="Q6 other namespaces do not count"),
        pytest.param("Pending", {"dataSource": SNAPSHOT}, "shop", False, id="12.2 snapshot of that name"),
        pytest.param(
            "Pending", {"dataSource": reference("PersistentVolumeClaim", "x")}, "shop", False, id="12.2 other"
        ),
        pytest.param("Pending", {}, "shop", False, id="12.2 no source"),
    ],
)
def test_clone_pending(phase: str | None, fields: dict[str, Any], namespace: str, pending: bool) -> None:
    clone = claim("clone", **fields)
    clone.metadata.namespace, clone.status.phase = namespace, phase
    assert sources.clone_pending(claim("src"), Readers([claim("other"), clone], {})) is pending


FAR = reference("VolumeSnapshot", group=GROUP, namespace="far")


@pytest.mark.parametrize(
    ("phase", "fields", "used"),
    [
        pytest.param("Pending", {"dataSource": SNAPSHOT}, {"shop/src"}, id="12.3 dataSource"),
        pytest.param(None, {"dataSource": SNAPSHOT}, {"shop/src"}, id="12.3 empty phase counts"),
        pytest.param("", {"dataSource": SNAPSHOT}, {"shop/src"}, id="12.3 phase of no letters"),
        pytest.param("Pending", {"dataSource": reference("VolumeSnapshot")}, {"shop/src"}, id="12.3 nil group"),
        pytest.param("Pending", {"dataSourceRef": SNAPSHOT}, {"shop/src"}, id="12.3 ref, own namespace"),
        pytest.param("Pending", {"dataSourceRef": FAR}, {"far/src"}, id="12.3 ref, its namespace"),
        pytest.param("Pending", {"dataSource": SNAPSHOT, "dataSourceRef": FAR}, {"shop/src"}, id="12.3 first only"),
        pytest.param("Pending", {"dataSource": CLONE, "dataSourceRef": FAR}, {"far/src"}, id="12.3 else the ref"),
        pytest.param("Bound", {"dataSource": SNAPSHOT}, set(), id="12.3 bound"),
        pytest.param("Lost", {"dataSource": SNAPSHOT}, set(), id="12.3 lost"),
        pytest.param("Pending", {"dataSource": reference("VolumeSnapshot", group="x")}, set(), id="12.3 group"),
        pytest.param("Pending", {}, set(), id="12.3 none"),
    ],
)
def test_snapshots_in_use(phase: str | None, fields: dict[str, Any], used: set[str]) -> None:
    it = claim(**fields)
    it.status.phase = phase
    users = sources.snapshot_users(Readers([it], {}))
    assert users == {key: [it] for key in used}
    assert sources.snapshot_users(Readers([], {UID: it})).keys() >= users.keys()


@pytest.mark.parametrize(
    ("finalizers", "used", "orphaned"),
    [
        pytest.param(["x", FINALIZER], set(), True, id="12.3 ours and unused"),
        pytest.param([FINALIZER], {"shop/src"}, False, id="12.3 used"),
        pytest.param([FINALIZER], {"far/src"}, True, id="12.3 used under that name elsewhere"),
        pytest.param(
            ["snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"], set(), False, id="1.2 not ours"
        ),
        pytest.param(None, set(), False, id="12.3 none"),
    ],
)
def test_is_orphaned(finalizers: list[str] | None, used: set[str], orphaned: bool) -> None:
    snapshot = k8s.VolumeSnapshot(metadata=k8s.ObjectMeta(name="src", namespace="shop", finalizers=finalizers))
    assert sources.is_orphaned(snapshot, {key: [claim()] for key in used}, {}) is orphaned
