"""What a leader term does when its caches change, and what it leaves behind."""

import gc
import time
import weakref
from collections.abc import Iterator
from math import inf
from typing import Any, cast

import msgspec
import pytest

from csi_provisioner.cli import keeper_from_collector
from csi_provisioner.kube.end import End
from csi_provisioner.kube.kept import Kept
from csi_provisioner.metrics import Metrics
from csi_provisioner.model.kubernetes import ClaimSpec, ObjectMeta, PersistentVolumeClaim, StorageClass
from csi_provisioner.model.state import Lane, LaneState
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.wellknown import STORAGE_PROVISIONER
from csi_provisioner.provision.memory import ClaimMemory
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.settings import ElectionSettings, Settings
from csi_provisioner.supervisor.parts import Parts
from csi_provisioner.supervisor.term import LeaderTerm
from tests.installation import NAMESPACE, Installation

FACTS = DriverFacts("hostpath.example.com", controller=frozenset({"CREATE_DELETE_VOLUME"}))


def a_term() -> LeaderTerm:
    """One that nobody runs: it has caches and handlers, but neither cluster nor driver."""
    settings, metrics, nobody = Settings(), Metrics(), cast("Any", None)
    parts = Parts(
        settings,
        settings.provisioning,
        metrics,
        kube=nobody,
        driver=nobody,
        events=nobody,
        memory=ClaimMemory(),
        orphans=Orphans(FACTS.name, metrics),
        kept=Kept(nobody, "", ""),
        end=End(),
        identity="me",
    )
    return LeaderTerm(parts, FACTS)


def put_claim(term: LeaderTerm, number: int, class_name: str, version: int, volume: str | None = None) -> None:
    annotations = {STORAGE_PROVISIONER: FACTS.name}
    meta = ObjectMeta(f"c{number}", "ns", f"uid-{number}", str(version), annotations=annotations)
    spec = ClaimSpec(storageClassName=class_name, volumeName=volume)
    term._caches.claims.put(PersistentVolumeClaim(meta, spec=spec))


def put_class(term: LeaderTerm, name: str, version: int) -> None:
    meta = ObjectMeta(name, uid=f"uid-{name}", resourceVersion=str(version))
    term._caches.storage_classes.put(StorageClass(meta, provisioner=FACTS.name))


def woken(term: LeaderTerm) -> list[str]:
    """The claims that are to be looked at; they are not from then on."""
    keys = []
    while popped := term._controllers.claims._schedule.pop(inf):
        keys.append(popped[0])
    return keys


async def test_a_new_class_wakes_the_claims_that_wait_for_it() -> None:
    term = a_term()
    for number, class_name in enumerate(("fast", "slow", "fast", "fast")):
        put_claim(term, number, class_name, 10 + number)
    put_claim(term, 3, "fast", 20, volume="pvc-3")
    assert woken(term) == ["uid-0", "uid-1", "uid-2", "uid-3"]
    put_class(term, "fast", 30)
    assert woken(term) == ["uid-0", "uid-2"]
    put_class(term, "fast", 31)
    assert woken(term) == [], "only a class that was missing"


async def test_new_classes_cost_nothing_for_claims_of_others() -> None:
    term = a_term()
    for number in range(5000):
        put_claim(term, number, "missing", 10 + number)
    begun = time.thread_time()
    for number in range(100):
        put_class(term, f"class-{number}", 10_000 + number)
    assert time.thread_time() - begun < 0.02


@pytest.fixture
def _unfrozen() -> Iterator[None]:
    """The rest of the test run is not the business of the process that froze what it found."""
    yield
    gc.unfreeze()


async def test_what_a_leader_knew_that_gave_its_lease_back_leaves_the_memory(site: Installation) -> None:
    site.storage_class()
    await site.start(election=ElectionSettings(enabled=True, namespace=NAMESPACE))
    site.claim()
    await site.bound("data")
    gc.collect()  # those of other tests
    [term] = (weakref.ref(obj) for obj in gc.get_objects() if isinstance(obj, LeaderTerm))
    store = weakref.ref(term()._caches.claims)
    site.kill_driver()
    await site.rest(60)
    await site.metrics()
    gc.collect()
    assert term() is None
    assert store() is None


@pytest.mark.usefixtures("_unfrozen")
async def test_the_caches_of_an_earlier_term_leave_the_memory(site: Installation) -> None:
    await site.start(synced=keeper_from_collector())
    gc.unfreeze()  # a look at what is frozen
    [term] = (weakref.ref(obj) for obj in gc.get_objects() if isinstance(obj, LeaderTerm))
    store = weakref.ref(term()._caches.claims)
    gc.freeze()
    site.kill_driver()
    await site.rest(5)
    await site.serve(msgspec.structs.replace(site.config, controller=("CREATE_DELETE_VOLUME",)))
    await site.until(lambda: len(site.logged("Caches are synced")) == 2)
    assert term() is None
    assert store() is None


async def test_the_lane_of_a_claim_is_told_also_while_nothing_of_it_waits() -> None:
    term = a_term()
    put_claim(term, 1, "fast", 10)
    assert term._controllers.fairness.lane_of("uid-1") == LaneState(Lane())
    put_class(term, "fast", 30)
    term._controllers.fairness.bounds.annotate("fast", 3)
    term._controllers.claims.state(0.0)
    assert term._controllers.fairness.lane_of("uid-1") == LaneState(Lane("fast"), waiting=1, bound=3)
