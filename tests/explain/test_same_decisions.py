"""Whatever the facts are, `explain` ends in a refusal exactly where the gate and the stages of a try refuse."""

import re
from functools import partial
from typing import Any, cast

import msgspec
import trio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lightkube.core.resource import api_info

from csi_provisioner.kube.asking import Ask
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.sender import Sender
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.outcome import TryError
from csi_provisioner.model.usage import Pod
from csi_provisioner.planning import gate, naming
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.explain import explain
from csi_provisioner.planning.explanation import Facts, Read, Status, Unread
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.provision.gather import Gatherer
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.placement import ClusterPlacement
from csi_provisioner.settings import ProvisioningSettings
from tests import canary
from tests.canary import CANARY
from tests.planning.clusters import csinode, node
from tests.planning.objects import ALL, DRIVER, UID, claim, reference, storage_class

SECRET = "csi.storage.k8s.io/provisioner-secret"
VOLUME = naming.default_name(UID)
ANNOTATION = "volume.kubernetes.io/storage-provisioner"
NODE = "volume.kubernetes.io/selected-node"
SNAPSHOTS = "snapshot.storage.k8s.io"


class Answers:
    """In the place of all that sends: an API server of a few objects."""

    def __init__(self, objects: dict[Read, Any]) -> None:
        self.objects = {self.path(read): found for read, found in objects.items() if read.name}
        self.cluster = type("Cluster", (), {"troubles": set()})

    @staticmethod
    def path(read: Read) -> str:
        info = api_info(read.kind)
        return "/".join(filter(None, (read.namespace, info.plural, read.name)))

    async def send(self, ask: Ask, begin: object = None) -> bytes:
        assert ask.method == "GET"
        parts = ask.url.split("/")
        path = "/".join(parts[-3:] if "namespaces" in parts else parts[-2:])
        found = self.objects.get(path, Unread("gone", missing=True))
        if isinstance(found, Unread):
            code = 403 if found.forbidden else 404
            raise KubeError(code, "Forbidden" if code == 403 else "NotFound", missing=(parts[-2], parts[-1]))
        return msgspec.json.encode(found)


def maybe(*values: Any) -> st.SearchStrategy[Any]:
    """Mostly the first, or nothing would come as far as the last stages."""
    return st.one_of(*[st.just(values[0])] * 3, st.sampled_from(values))


GONE, FORBIDDEN = Unread("gone", missing=True), Unread("no right", forbidden=True)
TIME = "2024-01-01T00:00:00Z"
GRANT = k8s.ReferenceGrant(
    metadata=k8s.ObjectMeta(name="g", namespace="far"),
    spec=k8s.ReferenceGrantSpec(
        [k8s.ReferenceGrantFrom("", "PersistentVolumeClaim", "shop")],
        [k8s.ReferenceGrantTo(SNAPSHOTS, "VolumeSnapshot")],
    ),
)


def meta(name: str, **fields: Any) -> k8s.ObjectMeta:
    return k8s.ObjectMeta(name=name, **fields)


@st.composite
def claims(draw: st.DrawFn) -> k8s.PersistentVolumeClaim:
    annotations = {ANNOTATION: draw(maybe(DRIVER, "other"))} if draw(maybe(True, False)) else {}
    annotations |= draw(maybe({}, {"acme.test/tier": "hot"}, {"FSTYPE": "xfs", "fsType": "xfs"}))
    if selected := draw(maybe("", "n-1", "n-2", "n-9")):
        annotations[NODE] = selected
    source = draw(maybe(None, reference("VolumeSnapshot", group=SNAPSHOTS), reference("PersistentVolumeClaim"),
                        reference("Well"), reference("VolumeSnapshot")))  # fmt: skip
    spec: dict[str, Any] = {
        "dataSource": source,
        "dataSourceRef": draw(maybe(None, reference("VolumeSnapshot", group=SNAPSHOTS, namespace="far"))),
        "volumeName": draw(maybe(None, "pv-0")),
        "selector": draw(maybe(None, {})),
        "storageClassName": draw(maybe("fast", None, "")),
        "volumeAttributesClassName": draw(maybe(None, "gold", "No Name")),
    }
    modes = draw(maybe(("ReadWriteOnce",), ("Sometimes",), ()))
    return claim(size=draw(maybe("5Gi", "1Gi", "9Ei", None)), modes=modes, annotations=annotations, **spec)


@st.composite
def objects(draw: st.DrawFn) -> dict[Read, Any]:
    """What the cluster has."""
    parameters = draw(maybe({}, {f"{SECRET}-name": "login", f"{SECRET}-namespace": "ops"}, {f"{SECRET}-name": "login"},
                            {f"{SECRET}-name": "${wrong}", f"{SECRET}-namespace": "ops"},
                            {"csi.storage.k8s.io/what": "x"}, {"fstype": "a", "csi.storage.k8s.io/fstype": "b"},
                            {"csi.storage.k8s.io/node-stage-secret-name": "x"}))  # fmt: skip
    expression = k8s.LabelSelectorRequirement("acme.test/zone", ["a"])
    class_ = storage_class(
        parameters,
        provisioner=draw(maybe(DRIVER, "other")),
        volumeBindingMode=draw(maybe("Immediate", "WaitForFirstConsumer")),
        allowedTopologies=draw(maybe(None, [k8s.TopologySelectorTerm([expression])])),
    )
    gone = draw(maybe({}, {"deletionTimestamp": TIME}))
    snapshot = k8s.VolumeSnapshot(
        metadata=meta("src", namespace="shop", uid="s", **gone),
        status=k8s.SnapshotStatus(draw(maybe("content", None)), draw(maybe(True, False)), draw(maybe("1Gi", "8Gi"))),
    )
    content = k8s.VolumeSnapshotContent(
        metadata=meta("content"),
        spec=k8s.SnapshotContentSpec(
            draw(maybe(DRIVER, "other")),
            draw(maybe(None, "Block")),
            k8s.ObjectReference(name="src", namespace="shop", uid=draw(maybe("s", "t"))),
        ),
        status=k8s.SnapshotContentStatus(draw(maybe("h", None))),
    )
    source = claim("src", size="2Gi", volumeName=draw(maybe("pv-1", None)))
    source.metadata.uid, source.status.phase = "src-uid", draw(maybe("Bound", "Pending"))
    volume = k8s.PersistentVolume(
        metadata=meta("pv-1"),
        spec=k8s.VolumeSpec(
            csi=k8s.CSIVolumeSource(draw(maybe(DRIVER, "other")), "h"),
            claimRef=k8s.ObjectReference(name="src", namespace="shop", uid="src-uid"),
        ),
        status=k8s.Phase("Bound"),
    )
    attributes = k8s.VolumeAttributesClass(metadata=meta("gold"), driverName=draw(maybe(DRIVER, "other")))
    secret = k8s.Secret(metadata=meta("login", namespace="ops"), data={"k": draw(maybe(CANARY.encode(), b"\xff"))})
    live = maybe(None, GONE, FORBIDDEN)
    own = k8s.PersistentVolume(metadata=meta(VOLUME))
    return {
        Read(k8s.StorageClass, "fast"): draw(maybe(class_, GONE)),
        Read(k8s.VolumeSnapshot, "src", "shop"): draw(live) or snapshot,
        Read(k8s.VolumeSnapshotContent, "content"): draw(live) or content,
        Read(k8s.PersistentVolumeClaim, "src", "shop"): draw(maybe(source, GONE)),
        Read(k8s.PersistentVolume, "pv-1"): draw(live) or volume,
        Read(k8s.PersistentVolume, "pv-0"): GONE,
        Read(k8s.PersistentVolume, VOLUME): draw(maybe(GONE, own)),
        Read(k8s.VolumeAttributesClass, "gold"): draw(live) or attributes,
        Read(k8s.Secret, "login", "ops"): draw(live) or secret,
        Read(k8s.Node): draw(maybe([node("n-1", {"zone": "a"}), node("n-2", {"zone": "b"})], [node("n-1", {})])),
        Read(k8s.CSINode): draw(maybe([csinode("n-1", ["zone"], DRIVER), csinode("n-2", ["zone"], DRIVER)],
                                      [csinode("n-1", None)], [])),
        Read(k8s.CSIStorageCapacity): [],
        Read(k8s.StorageClass): [],
        Read(k8s.PersistentVolume): [],
        Read(k8s.ReferenceGrant, "", "far"): draw(maybe([], [GRANT])),
        Read(k8s.VolumeSnapshot, "src", "far"): draw(maybe(GONE, FORBIDDEN)),
    }  # fmt: skip


@st.composite
def drivers(draw: st.DrawFn) -> DriverFacts:
    return DriverFacts(
        DRIVER,
        plugin=frozenset({"CONTROLLER_SERVICE"}),
        controller=draw(maybe(ALL, frozenset({"CREATE_DELETE_VOLUME"}), frozenset())),
        topology=draw(st.booleans()),
    )


def as_the_daemon(facts: Facts) -> TryError | None:
    """The gate, the look for a volume, and the stages of `gather`: how a try would end before the driver is asked."""
    found, driver = facts.found, facts.driver
    name = gate.claim_class(facts.claim)
    class_ = found[Read(k8s.StorageClass, name)] if name else GONE
    cluster = ClusterTopology(driver.name, found[Read(k8s.Node)], found[Read(k8s.CSINode)])
    placement = ClusterPlacement(cluster, facts.settings, ClaimMemory()) if driver.topology else None
    gatherer = Gatherer(
        kube=KubeClient(cast(Sender, Answers(dict(found)))),
        facts=driver,
        settings=facts.settings,
        grants=lambda: found[Read(k8s.ReferenceGrant, "", "far")],
        placement=placement,
        under_way=lambda _uid: False,
        taken=lambda _uid: None,
    )
    if not gate.concerns(facts.claim, driver):
        return None
    try:
        decided = gate.decide(facts.claim, None if isinstance(class_, Unread) else class_, driver)
        if not isinstance(found[Read(k8s.PersistentVolume, VOLUME)], Unread):
            return None
        gate.check_class(decided, driver)
        trio.run(partial(gatherer.plan, facts.claim, decided, protect=False))
    except TryError as error:
        return None if error.ignored else error
    return None


@given(claims(), objects(), drivers(), st.booleans(), st.booleans())
@hypothesis_settings(max_examples=30)
def test_it_ends_in_a_refusal_exactly_where_a_try_does(
    claim_: k8s.PersistentVolumeClaim, found: dict[Read, Any], driver: DriverFacts, strict: bool, crossing: bool
) -> None:
    options = ProvisioningSettings(
        strict_topology=strict, cross_namespace=crossing, claim_annotation_prefixes=("acme.test/", "fs")
    )
    facts = Facts(claim=claim_, driver=driver, settings=options, found=found, same_account=True, elects=False)
    events = Read(k8s.Event, "", "shop", f"involvedObject.uid={UID}")
    facts = msgspec.structs.replace(facts, found=found | {events: []} | {Read(Pod, "", "shop"): []})
    explained = explain(facts)
    assert explained.needs is None, explained.needs
    canary.look("explain", repr(explained.steps))
    ended, error = explained.decisive, as_the_daemon(facts)
    # That a class is missing is said also of claims that the volume controller does not hand to us.
    if isinstance(found[Read(k8s.StorageClass, "fast")], Unread) and not gate.concerns(claim_, driver):
        return
    assert (ended.status is Status.REFUSED) == (error is not None), (explained.steps, error)
    if error is not None:
        assert ended.step == error.step
        # What the API server said is told in other words.
        assert (
            re.search(r": gone|\(gone\)", ended.text)
            or "no right" in ended.text
            or ended.text in f"{error} ({error.detail})"
        )
