"""provision.md 8 and 9.1: the order of the steps, and the request that comes out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.csi import wire
from csi_provisioner.model import csi
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.kubernetes import SecretReference
from csi_provisioner.model.outcome import State
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import classes, request, secrets, templates
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.sources import Content
from tests.planning.objects import (
    CLONE,
    CREATES,
    DRIVER,
    SETTINGS,
    SNAPSHOT,
    UID,
    but,
    claim,
    draft,
    driver,
    plan,
    reference,
    settings,
    storage_class,
)

P = "csi.storage.k8s.io/"


def test_a_plain_claim_makes_a_plain_request() -> None:
    """provision.md 9.1."""
    mode = csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
    writer = csi.VolumeCapability(
        mount=csi.VolumeCapabilityMountVolume(), access_mode=csi.VolumeCapabilityAccessMode(mode=mode)
    )
    assert plan(draft(class_=storage_class({"tier": "gold"}))).request == csi.CreateVolumeRequest(
        name=f"pvc-{UID}",
        capacity_range=csi.CapacityRange(required_bytes=5 << 30),
        volume_capabilities=[writer],
        parameters={"tier": "gold"},
    )


def test_a_request_has_everything_that_was_gathered() -> None:
    """provision.md 9.1."""
    settled = draft(claim(dataSource=SNAPSHOT), storage_class({"tier": "gold"}))
    requirement = csi.TopologyRequirement(requisite=[csi.Topology(segments={"zone": "a"})])
    made = request.finish(
        settled,
        Content("VolumeSnapshot", "snap-1"),
        requirement,
        {},
        SecretData({"user": "joe"}),
        {"iops": "1"},
        settings(extra_create_metadata=True),
    )
    assert made.request.volume_content_source == csi.VolumeContentSource(
        snapshot=csi.VolumeContentSourceSnapshotSource(snapshot_id="snap-1")
    )
    assert made.request.accessibility_requirements == requirement
    assert made.request.secrets == {"user": "joe"}
    assert made.request.mutable_parameters == {"iops": "1"}
    assert made.request.parameters == {
        "tier": "gold",
        f"{P}pvc/name": "a",
        f"{P}pvc/namespace": "shop",
        f"{P}pv/name": f"pvc-{UID}",
    }


def test_the_source_of_a_clone_is_a_volume_id() -> None:
    """provision.md 9.1."""
    settled = draft(claim(dataSource=CLONE))
    made = request.finish(settled, Content("PersistentVolumeClaim", "v-1"), None, {}, None, None, SETTINGS)
    assert made.request.volume_content_source == csi.VolumeContentSource(
        volume=csi.VolumeContentSourceVolumeSource(volume_id="v-1")
    )


def test_the_same_claim_gets_the_same_bytes() -> None:
    """Retries must send the same request. provision.md 9.1."""
    assert bytes(plan(draft()).request) == bytes(plan(draft()).request)


def test_the_class_is_not_changed_by_a_plan() -> None:
    given = {"tier": "gold", f"{P}fstype": "xfs"}
    class_plan = classes.read(storage_class(given), driver())
    settled = request.draft(claim(), class_plan, driver(), SETTINGS)
    plan(settled, settings(extra_create_metadata=True)).request.parameters["new"] = "x"
    assert given == {"tier": "gold", f"{P}fstype": "xfs"}
    assert class_plan.parameters == {"tier": "gold"}


@pytest.mark.parametrize(
    ("parameters", "default", "fstype"),
    [
        pytest.param({"fstype": "xfs"}, "ext4", "xfs", id="8.5 the class first, p19-request-7"),
        pytest.param({}, "ext4", "ext4", id="8.5 the flag"),
        pytest.param({f"{P}fstype": ""}, "ext4", "ext4", id="8.5 an empty one is none"),
        pytest.param({}, "", "", id="16 vector no fstype anywhere"),
    ],
)
def test_the_fs_type_is_that_of_the_class_or_the_default(parameters: dict[str, str], default: str, fstype: str) -> None:
    """provision.md 8.9."""
    settled = draft(class_=storage_class(parameters), options=settings(default_fstype=default))
    assert settled.fstype == fstype
    mount = settled.capabilities[0].mount
    assert mount is not None
    assert mount.fs_type == fstype


@pytest.mark.parametrize(
    ("size", "required"),
    [
        pytest.param("1500m", 2, id="8-10 rounded up"),
        pytest.param(None, 0, id="8-10 missing is 0"),
        pytest.param("5Gi", 5 << 30, id="8-10"),
    ],
)
def test_required_bytes(size: str | None, required: int) -> None:
    capacity = plan(draft(claim(size=size))).request.capacity_range
    assert capacity is not None
    assert (capacity.required_bytes, capacity.limit_bytes) == (required, 0)


@pytest.mark.parametrize("selector", [{}, {"matchLabels": {"a": "b"}}], ids=["16 vector empty", "8-7 labels"])
def test_selector(selector: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="selector") as refused:
        draft(claim(selector=selector))
    assert refused.value.state is State.FINISHED


def test_mount_options_of_the_class_are_passed_on_p19_request_1() -> None:
    """provision.md 8."""
    settled = draft(class_=storage_class(mountOptions=["noatime"]))
    mount = settled.capabilities[0].mount
    assert mount is not None
    assert mount.mount_flags == ["noatime"]


def test_the_selected_node_is_passed_on_for_any_class() -> None:
    """provision.md 8."""
    it = claim(annotations={"volume.alpha.kubernetes.io/selected-node": "n1"})
    assert draft(it).selected_node == "n1"


def test_a_populator_claim_never_fails_on_capabilities() -> None:
    """provision.md 8.3."""
    with pytest.raises(Refusal) as refused:
        draft(claim(dataSourceRef=reference("Hello", group="x")), facts=driver(controller=CREATES))
    assert refused.value.ignored


def test_without_the_gate_attributes_classes_are_left_out() -> None:
    """provision.md 8.10."""
    it = claim(volumeAttributesClassName="gold")
    settled = draft(it, facts=driver(controller=CREATES), options=settings(volume_attributes_class=False))
    assert settled.attributes_class is None
    assert plan(settled).request.mutable_parameters == {}


@pytest.mark.parametrize(
    ("fields", "crossing", "expected"),
    [
        pytest.param({}, True, False, id="9.3-4 no source"),
        pytest.param({"dataSource": SNAPSHOT}, False, True, id="9.3-4 dataSource"),
        pytest.param({"dataSourceRef": SNAPSHOT}, True, False, id="9.3-4 ref in the own namespace by default"),
        pytest.param(
            {"dataSourceRef": reference("PersistentVolumeClaim", namespace="shop")}, True, True, id="9.3-4 ref"
        ),
    ],
)
def test_expects_content(fields: dict[str, Any], crossing: bool, expected: bool) -> None:
    options = settings(cross_namespace=crossing)
    assert plan(draft(claim(**fields), options=options), options).expects_content is expected


def test_the_steps_speak_in_their_order() -> None:
    """Everything wrong at once: repaired one by one, the next step in line speaks. provision.md 8."""
    zones = k8s.TopologySelectorTerm(
        matchLabelExpressions=[k8s.LabelSelectorRequirement(key="topology.kubernetes.io/zone", values=["a"])]
    )
    ebs, in_tree = "ebs.csi.aws.com", "kubernetes.io/aws-ebs"
    class_ = storage_class(
        {"zone": "a", "fstype": "x", "FSTYPE": "y", f"{P}nonsense": "x"}, provisioner=in_tree, allowedTopologies=[zones]
    )
    it = claim(dataSourceRef=reference("VolumeSnapshot", namespace="far"), selector={}, modes=("Never",), size="huge")
    it = but(it, "metadata.uid", "")
    facts = driver(ebs, controller=frozenset(), in_tree_name=in_tree)
    snapshot = reference("VolumeSnapshot", group="snapshot.storage.k8s.io")
    steps: list[tuple[str, str, str, Any]] = [
        ("2 CrossNamespace", "claim", "spec.dataSourceRef", reference("VolumeSnapshot")),
        ("3 cannot translate", "class", "provisioner", ebs),
        ("4 API group", "claim", "spec.dataSourceRef", snapshot),
        ("6 CREATE_DELETE_VOLUME", "driver", "controller", driver().controller),
        ("7 selector", "claim", "spec.selector", None),
        ("8 no UID", "claim", "metadata.uid", UID),
        ("9 fs type", "class", "parameters", {"fstype": "x", f"{P}nonsense": "x"}),
        ("10 quantity", "claim", "spec.resources.requests", {"storage": "1Gi"}),
        ("11 'Never'", "claim", "spec.accessModes", ["ReadWriteOnce"]),
    ]
    for says, which, path, good in steps:
        with pytest.raises(Refusal, match=says.split(" ", 1)[1]) as refused:
            draft(it, class_, facts)
        assert refused.value.state is State.FINISHED
        it = but(it, path, good) if which == "claim" else it
        class_ = but(class_, path, good) if which == "class" else class_
        facts = but(facts, path, good) if which == "driver" else facts
    settled = draft(it, class_, facts)
    for late in (request.check_parameters, plan):
        with pytest.raises(Refusal, match="nonsense") as refused:
            late(settled)
        assert refused.value.state is State.FINISHED


# ---- secrets of a new volume (steps 16 and 17)

DEFAULT = {f"{P}secret-name": "${pvc.name}", f"{P}secret-namespace": "ns"}


def test_the_default_pair_of_secrets_is_for_every_role() -> None:
    """provision.md 16."""
    settled = draft(class_=storage_class(DEFAULT))
    resolved = SecretReference(name="a", namespace="ns")
    assert secrets.provisioner_reference(settled) == resolved
    found = secrets.references(settled)
    assert found == dict.fromkeys(templates.ROLES, resolved)


def test_tokens_stand_for_this_claim_p19_request_6() -> None:
    """provision.md 8.9."""
    parameters = {
        f"{P}provisioner-secret-name": "${pvc.annotations['who']}-${pv.name}",
        f"{P}provisioner-secret-namespace": "${pvc.namespace}",
    }
    it = claim(annotations={"who": "me"})
    settled = draft(it, storage_class(parameters), options=settings(volume_name_prefix="vol"))
    assert secrets.provisioner_reference(settled) == SecretReference(name=f"me-vol-{UID}", namespace="shop")
    assert secrets.references(settled) == {
        templates.PROVISIONER: SecretReference(name=f"me-vol-{UID}", namespace="shop")
    }


def test_no_secrets() -> None:
    assert secrets.provisioner_reference(draft()) is None
    assert secrets.references(draft()) == {}


def test_a_provisioner_secret_without_namespace_is_refused() -> None:
    """provision.md 16."""
    settled = draft(class_=storage_class({f"{P}provisioner-secret-name": "x"}))
    with pytest.raises(Refusal, match="provisioner-secret-namespace") as refused:
        secrets.provisioner_reference(settled)
    assert refused.value.state is State.NO_CHANGE


def test_roles_are_resolved_in_their_order() -> None:
    """provision.md 8.17."""
    half = {f"{P}controller-publish-secret-name": "x", f"{P}node-stage-secret-name": "x"}
    with pytest.raises(Refusal, match="controller-publish"):
        secrets.references(draft(class_=storage_class(half)))


def test_a_secret_that_cannot_be_read_is_refused() -> None:
    """provision.md 16."""
    no = secrets.unreadable(draft(), SecretReference(name="x", namespace="ns"), "not found")
    assert (no.state, no.message) == (
        State.NO_CHANGE,
        "cannot read the provisioner secret ns/x that StorageClass fast names: not found",
    )


def test_no_secret_in_any_text() -> None:
    hidden = SecretData({"user": "s3cr3t"})
    made = request.finish(draft(), None, None, {}, hidden, None, SETTINGS)
    assert made.request.secrets == {"user": "s3cr3t"}
    assert "s3cr3t" not in f"{made!r} {made} {made.draft!r} {made.secrets!r}"
    assert DRIVER in repr(made.draft)


# ---- how large it may be

TEXT = st.text(max_size=200)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=4)


@given(
    TEXTS,
    TEXTS,
    TEXTS,
    st.lists(st.dictionaries(TEXT, TEXT, min_size=1, max_size=3), max_size=40),
    st.lists(TEXT, max_size=3),
    st.lists(st.sampled_from(["ReadWriteOnce", "ReadOnlyMany"]), max_size=40),
    st.booleans(),
)
def test_the_size_that_is_counted_is_that_on_the_wire(
    parameters: dict[str, str],
    secret: dict[str, str],
    mutable: dict[str, str],
    segments: list[dict[str, str]],
    flags: list[str],
    modes: list[str],
    block: bool,
) -> None:
    """provision.md 9.1."""
    places = [csi.Topology(segments=each) for each in segments]
    requirement = csi.TopologyRequirement(requisite=places, preferred=places[1:] + places[:1])
    wanted = claim(modes=tuple(modes), volumeMode="Block" if block else "Filesystem")
    settled = draft(wanted, storage_class(parameters, mountOptions=flags), options=settings(default_fstype="ext4"))
    made = request.finish(
        settled, None, requirement, {}, SecretData(secret), mutable, settings(default_fstype="ext4")
    ).request
    assert abs(request.size_of(made) - len(wire.encode(made))) < 300


def _finished(parameters: dict[str, str], modes: int = 1, flags: list[str] | None = None) -> csi.CreateVolumeRequest:
    settled = draft(claim(modes=("ReadWriteOnce",) * modes), storage_class(parameters, mountOptions=flags))
    return plan(settled).request


@pytest.mark.parametrize(
    ("parameters", "modes", "flags"),
    [
        pytest.param({"a": "x" * (4 << 20)}, 1, None, id="parameters"),
        pytest.param({}, 1_000, ["noatime", "nodiratime", "x" * 5_000], id="access modes"),
    ],
)
def test_a_request_that_no_driver_takes_is_refused(
    parameters: dict[str, str], modes: int, flags: list[str] | None
) -> None:
    """provision.md 9.1."""
    with pytest.raises(Refusal, match=r"claim shop/a has \d+ bytes, .* StorageClass fast ") as refused:
        _finished(parameters, modes, flags)
    assert refused.value.state is State.NO_CHANGE


def test_the_largest_request_is_taken() -> None:
    """provision.md 9.1."""
    assert len(wire.encode(_finished({"a": "x" * ((4 << 20) - 1000)}))) <= request.LARGEST
