"""Claims that have failed for want of topology are tried once a node says where it is, and by nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.kubernetes import NodeName
from csi_provisioner.provision.unplaced import UnplacedClaims
from sandbox.api.errors import Object
from tests.embedded import VIRTUAL, Cluster, embedded
from tests.planning.clusters import DRIVER, csinode, full, node
from tests.provision.test_placement import start

ZONE = (full("zone"),)


class Woken(UnplacedClaims, dict=True):
    """Three claims: of a node without the label, of one without an entry, and of any node."""

    def __post_init__(self) -> None:
        self.woken: list[tuple[str, float]] = []
        self.wake = lambda uid, after: self.woken.append((uid, after))
        self.random = lambda: 0.5
        self.wait("label", NodeName("n1"), ZONE)
        self.wait("entry", NodeName("n2"), ())
        self.wait("any", NodeName(""), ZONE)


def test_updates_of_nodes_that_leave_these_labels_as_they_are_wake_nobody() -> None:
    claims = Woken(DRIVER, lambda uid, after: None)
    before = node("n1", {"rack": "r-1"})
    for heartbeat in range(10_000):
        after = node("n1", {"rack": "r-1"} if heartbeat % 2 else {"rack": "r-1", "beat": "x"})
        claims.saw_node("n1", before, after)
        before = after
    assert claims.woken == []


def test_a_label_that_the_keys_name_wakes_the_claims_of_the_node_and_of_any() -> None:
    claims = Woken(DRIVER, lambda uid, after: None)
    claims.saw_node("n1", node("n1", {}), node("n1", {"zone": "z-1"}))
    assert sorted(claims.woken) == [("any", 0.5), ("label", 0.5)]
    claims.saw_node("n1", node("n1", {"zone": "z-1"}), node("n1", {"zone": "z-2"}))
    assert len(claims.woken) == 2  # once each


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (csinode("n2", None), csinode("n2", ["zone"])),
        (None, csinode("n2", ["zone"])),
        (csinode("n2", ["rack"]), csinode("n2", ["zone"])),
    ],
    ids=["registered", "a new node", "other keys"],
)
def test_the_entry_of_the_driver_wakes_the_claims_of_the_node_and_of_any(
    old: k8s.CSINode | None, new: k8s.CSINode
) -> None:
    claims = Woken(DRIVER, lambda uid, after: None)
    claims.saw_csinode("n2", old, new)
    assert sorted(uid for uid, _ in claims.woken) == ["any", "entry"]


def test_entries_of_other_drivers_wake_nobody() -> None:
    claims = Woken(DRIVER, lambda uid, after: None)
    claims.saw_csinode("n2", csinode("n2", None), csinode("n2", ["zone"], driver="third.acme.test"))
    claims.saw_csinode("n2", csinode("n2", ["zone"]), csinode("n2", ["zone"]))
    claims.saw_csinode("n3", None, csinode("n3", None))
    assert claims.woken == []


def test_nothing_is_kept_of_claims_that_are_gone_or_tried_again() -> None:
    claims = Woken(DRIVER, lambda uid, after: None)
    gone = k8s.PersistentVolumeClaim(metadata=k8s.ObjectMeta(name="a", uid="any"))
    claims.saw_claim("ns/a", gone, None)
    claims.over("label")
    claims.over("entry")
    claims.over("entry")
    assert (claims._waits, claims._places) == ({}, {})


# ---- with everything


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def cluster(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with embedded(tmp_path) as made:
        made.storage_class("late", DRIVER)
        made.storage_class("now", DRIVER, late=False)
        yield made


def registered(csinode: Object, keys: list[str]) -> None:
    csinode["spec"]["drivers"] = [{"name": DRIVER, "nodeID": "n1", "topologyKeys": keys}]


async def test_a_claim_is_tried_within_a_second_of_what_it_waited_for(cluster: Cluster) -> None:
    """First the entry, then the label: each time the back-off was minutes."""
    cluster.objects.create("Node", {"metadata": {"name": "n1", "labels": {}}})
    cluster.objects.create("CSINode", {"metadata": {"name": "n1"}, "spec": {"drivers": []}})
    driver = await start(cluster)
    cluster.claim("late", "late", node="n1")
    cluster.claim("now", "now")
    await trio.sleep(600)
    failures = len(cluster.server.calls.of(verb="patch", kind="Event"))
    cluster.objects.edit("CSINode", "n1", change=lambda found: registered(found, list(ZONE)))
    await trio.sleep(1.5)
    assert len(cluster.server.calls.of(verb="patch", kind="Event")) > failures
    assert driver.made("CreateVolume") == []
    await trio.sleep(200)
    cluster.objects.edit("Node", "n1", change=lambda found: found["metadata"].update(labels={full("zone"): "z-1"}))
    since = trio.current_time()
    await cluster.until(lambda: cluster.is_bound("late", "now"))
    assert trio.current_time() - since < 1.5
