"""Who takes "not in the cache" for "gone": each, with a claim or a volume of which the cache keeps only a record.

Each test ends otherwise where a record is taken for an object that is gone.
"""

from typing import Any, cast

import msgspec
import pytest
from lightkube.core.generic_client import BasicRequest

from csi_provisioner.csi.errors import CallError
from csi_provisioner.deletion.volumes import VolumeReconciler
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.end import End
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.kept import Kept
from csi_provisioner.kube.sender import Sender
from csi_provisioner.metrics import Metrics
from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.codes import Code
from csi_provisioner.model.outcome import Attempt, Done, Retry, RetryAt, State
from csi_provisioner.planning.entries import ClaimName, Entry
from csi_provisioner.planning.leftover import Leftover
from csi_provisioner.planning.wellknown import VOLUME_FINALIZER
from csi_provisioner.provision.memory import ClaimMemory, Unsaved
from csi_provisioner.provision.orphans import Orphans
from csi_provisioner.settings import Settings
from csi_provisioner.supervisor import answering
from csi_provisioner.supervisor.parts import Parts
from csi_provisioner.supervisor.term import LeaderTerm
from tests.planning import objects
from tests.planning.objects import DRIVER, UID, but

NAME = f"pvc-{UID}"
PENDING = objects.claim("data")
BOUND = but(but(objects.claim("data", volumeName=NAME), "status.phase", "Bound"), "metadata.resourceVersion", "20")
SETTLED = but(but(objects.volume(phase="Bound"), "metadata.name", NAME), "metadata.uid", UID.replace("6", "7"))
REFERENCE = k8s.ObjectReference("PersistentVolumeClaim", "v1", "data", "shop", UID)


class Api:
    """In the place of all that sends: an API server of a few objects."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.asked: list[str] = []
        self.refused: dict[str, int] = {}
        self.cluster = type("Cluster", (), {"troubles": set()})

    def server_time(self) -> float:
        return 1000.0

    async def send(self, ask: BasicRequest, begin: object = None) -> bytes:
        path = ask.url.partition("/v1/")[2]
        self.asked.append(f"{ask.method} {path}")
        kind, name = path.split("/")[-2:]
        if code := self.refused.get(ask.method):
            raise KubeError(code, "Forbidden")
        if path not in self.objects:
            raise KubeError(404, "NotFound", missing=(kind, name))
        return msgspec.json.encode(self.objects[path])


class Journal:
    """Of one entry, whose call was begun."""

    hold = 0.0
    taken_at = 0.0

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.handed_over: list[str] = []
        self.inherited: dict[str, Entry] = {}
        self.doubted: set[str] = set()

    def begin(self, name: str) -> None:
        self.begun[name] = 0.0

    def is_certain(self, _name: str) -> bool:
        return False

    def doubt(self, name: str) -> None: ...

    def hand_over(self, name: str) -> bool:
        self.handed_over.append(name)
        return True


class World:
    """A term of a leader with nobody behind it but an API server. The caches are whole, and keep `BOUND` and `SETTLED`
    as records; the memory comes to them only afterwards."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.api, self.journal = Api(), journal
        self.events: list[tuple[Any, str, str]] = []
        self.kept: list[Leftover] = []
        settings, metrics, self.memory = Settings(), Metrics(), ClaimMemory()
        self.parts = Parts(
            settings,
            settings.provisioning,
            metrics,
            kube=KubeClient(cast("Sender", self.api)),
            driver=cast("Any", None),
            events=cast("Any", self),
            memory=self.memory,
            orphans=Orphans(DRIVER, metrics, self.kept.append),
            kept=Kept(cast("Any", None), "", ""),
            end=End(),
            identity="me",
            journal=cast("Any", journal),
        )
        self.term = LeaderTerm(self.parts, objects.driver())
        self.term._synced = True
        self.caches = self.term._caches
        self.controllers = self.term._controllers
        self.caches.storage_classes.put(but(objects.storage_class(), "metadata.resourceVersion", "5"))
        self.caches.claims.put(BOUND)
        self.caches.volumes.put(but(SETTLED, "metadata.resourceVersion", "21"))
        self.api.objects["namespaces/shop/persistentvolumeclaims/data"] = BOUND
        self.api.objects[f"persistentvolumes/{NAME}"] = SETTLED
        assert self.caches.claims.by_uid(UID) is None
        assert self.caches.claims.knows("shop/data", UID)
        assert self.caches.volumes.get(NAME) is None

    @property
    def reconciler(self) -> VolumeReconciler:
        subscribed = (getattr(handler, "__self__", None) for handler in self.caches.volumes._handlers)
        return next(each for each in subscribed if isinstance(each, VolumeReconciler))

    def record(self, about: Any, _type: str, reason: str, message: str, *_more: Any, **_named: Any) -> None:
        self.events.append((about, reason, message))


async def test_a_claim_that_is_in_progress_and_bound_is_not_asked_for_again() -> None:
    world = World()
    world.memory.ask(PENDING)
    assert isinstance(await world.controllers.provisioner.reconcile(UID, Attempt()), Done)
    assert world.api.asked == ["GET namespaces/shop/persistentvolumeclaims/data"]
    assert world.memory.of(UID).asked is None
    assert world.kept == [], "it is bound to our volume"


async def test_where_the_api_server_does_not_say_to_what_it_is_bound_it_is_asked_again() -> None:
    world = World()
    world.memory.ask(PENDING)
    world.api.refused["GET"] = 503
    assert isinstance(await world.controllers.provisioner.reconcile(UID, Attempt()), Retry)
    assert world.memory.of(UID).asked is PENDING


async def test_a_volume_that_is_there_was_made() -> None:
    world = World()
    world.memory.keep_unsaved(SETTLED, PENDING, "h")
    world.memory.note_written(NAME)
    assert await world.controllers.provisioner._was_made(PENDING)
    world.memory.forget_written(UID)
    assert await world.controllers.provisioner._was_made(PENDING)
    assert world.api.asked == []


async def test_that_its_volume_is_written_is_said_on_the_claim() -> None:
    world = World()
    await world.controllers.saver.announcer.written(but(SETTLED, "spec.claimRef", REFERENCE))
    [(about, reason, _message)] = world.events
    assert (about, reason) == (REFERENCE, "ProvisioningSucceeded")


async def test_that_its_volume_cannot_be_written_is_said_on_the_claim() -> None:
    world = World()
    volume = but(SETTLED, "spec.claimRef", REFERENCE)
    world.controllers.saver.announcer.refused(Unsaved(volume, PENDING, "h"), KubeError(422, "Invalid"))
    assert [(about, reason) for about, reason, _message in world.events] == [(REFERENCE, "ProvisioningFailed")]


async def test_a_final_answer_for_a_claim_that_is_there_hands_nothing_over() -> None:
    world = World(Journal())
    assert world.journal is not None
    provisioner = world.controllers.provisioner
    error = CallError(Code.INVALID_ARGUMENT, "no", "CreateVolume")
    provisioner._follow_up(PENDING, error, Retry("no", state=State.FINISHED), True)
    assert world.journal.handed_over == []
    world.caches.claims.drop(but(BOUND, "metadata.resourceVersion", "30"))
    provisioner._follow_up(PENDING, error, Retry("no", state=State.FINISHED), True)
    assert world.journal.handed_over == [NAME]


async def test_a_try_that_ends_before_the_call_ends_nothing_of_a_claim_that_is_there() -> None:
    world = World(Journal())
    assert world.journal is not None
    world.memory.ask(PENDING)
    outcome = Retry("no", state=State.FINISHED)
    world.controllers.provisioner._follow_up(PENDING, KubeError(403, "Forbidden"), outcome, False)
    assert world.memory.of(UID).asked is PENDING
    assert world.journal.handed_over == []


async def test_at_the_end_of_the_process_nothing_is_lost_of_claims_that_are_there() -> None:
    world = World()
    world.memory.ask(PENDING)
    world.memory.keep_unsaved(but(SETTLED, "spec.claimRef", REFERENCE), PENDING, "h")
    world.term.end()
    assert world.kept == []
    world.caches.claims.drop(but(BOUND, "metadata.resourceVersion", "30"))
    world.term.end()
    assert [suspect.name for suspect in world.kept] == [NAME]


async def test_a_try_whose_claim_is_bound_meanwhile_does_not_say_that_it_was_deleted() -> None:
    world = World()
    plan = objects.plan(objects.draft(PENDING))
    with pytest.raises(Exception, match="it was bound") as refused:
        async with world.controllers.intents.declared(plan, Attempt()):
            pass
    assert refused.value.ignored  # type: ignore[attr-defined]


async def test_a_claim_stays_whole_while_its_entry_is_open() -> None:
    world = World(Journal())
    assert world.journal is not None
    world.journal.begin(NAME)
    world.caches.claims.put(but(BOUND, "metadata.resourceVersion", "30"))
    world.caches.claims.cool(list(world.caches.claims.warm))
    assert world.caches.claims.by_uid(UID) is not None
    world.journal.begun.clear()
    world.caches.claims.cool(list(world.caches.claims.warm))
    assert world.caches.claims.by_uid(UID) is None


async def test_recovery_asks_the_api_server_whether_a_claim_still_wants_the_volume() -> None:
    world = World(Journal())
    assert world.journal is not None
    claim = ClaimName("shop", "data", UID)
    world.journal.inherited[NAME] = Entry(1, DRIVER, claim, "fast", "Delete", b"", when=1000)
    world.caches.volumes.drop(but(SETTLED, "metadata.resourceVersion", "30"))
    del world.api.objects[f"persistentvolumes/{NAME}"]
    recovery = world.controllers._recovery
    assert recovery is not None
    assert isinstance(await recovery.reconcile(NAME, Attempt()), RetryAt)
    assert world.api.asked == [f"GET persistentvolumes/{NAME}", "GET namespaces/shop/persistentvolumeclaims/data"]


async def test_a_missing_right_on_a_volume_is_said_on_its_claim() -> None:
    world = World()
    world.api.refused["PATCH"] = 403
    volume = but(but(SETTLED, "spec.claimRef", REFERENCE), "metadata.finalizers", [])
    world.caches.volumes.put(but(volume, "metadata.resourceVersion", "31"))
    await world.controllers.volumes.reconcile(NAME, Attempt())
    assert [(about, reason) for about, reason, _message in world.events] == [(REFERENCE, "VolumeFailedDelete")]


async def test_explain_is_told_that_the_claim_is_known() -> None:
    world = World()
    assert answering.claim(world.parts, world.controllers, world.caches, UID).cached
    assert not answering.claim(world.parts, world.controllers, world.caches, UID.replace("6", "7")).cached


async def test_the_bound_of_a_class_that_is_gone_stays_while_a_volume_names_it() -> None:
    world, limit = World(), {"csi-provisioner.io/max-concurrent-calls": "3"}
    bounds = world.controllers.fairness.bounds
    limited = but(objects.storage_class(), "metadata.annotations", limit)
    world.caches.storage_classes.put(but(limited, "metadata.resourceVersion", "30"))
    world.caches.storage_classes.drop(but(limited, "metadata.resourceVersion", "31"))
    assert bounds.of("fast") == 3
    world.caches.volumes.drop(but(SETTLED, "metadata.resourceVersion", "32"))
    assert bounds.of("fast") is None


async def test_a_wait_for_a_node_is_over_once_the_volume_is_not_to_be_deleted() -> None:
    world = World()
    reconciler = world.reconciler
    reconciler._detaching._waits[NAME] = ("node-1",), 0.0
    await reconciler.reconcile(NAME, Attempt())
    assert reconciler._detaching._waits == {}


async def test_our_finalizer_goes_also_from_a_volume_that_is_not_to_be_deleted_any_more() -> None:
    """People have called it Failed while the driver deleted its volume."""
    world = World()
    await world.reconciler._remove(but(SETTLED, "metadata.deletionTimestamp", "2026-01-01T00:00:00Z"))
    assert VOLUME_FINALIZER in (SETTLED.metadata.finalizers or ())
    assert world.api.asked == [f"PATCH persistentvolumes/{NAME}"]


@pytest.mark.parametrize("restored", ["20", "25"], ids=["older than the cache had it", "as the cache had it"])
async def test_a_volume_that_a_restore_has_brought_back_is_deleted_again(restored: str) -> None:
    """Its PersistentVolume was as good as gone: another finalizer was on it, or the watch had not told of its end."""
    world = World()
    volumes, reconciler = world.caches.volumes, world.reconciler
    released = but(but(SETTLED, "status.phase", "Released"), "metadata.resourceVersion", restored)
    leaving = but(released, "metadata.resourceVersion", "25")
    if restored != "25":
        leaving = but(leaving, "metadata.deletionTimestamp", "2026-01-01T00:00:00Z")
    volumes.put(leaving)
    reconciler._note(reconciler._deleted, leaving)
    await reconciler.reconcile(NAME, Attempt())
    assert world.api.asked.pop() == f"PATCH persistentvolumes/{NAME}"
    assert await reconciler.reconcile(NAME, Attempt()) == Done()
    world.api.asked.clear()
    volumes.doubt()
    fresh: dict[str, Any] = {}
    volumes.admit(released, fresh)
    volumes.tell(volumes.replace(fresh, "22"))
    assert not reconciler.expects(leaving, released)
    await reconciler.reconcile(NAME, Attempt())
    assert world.api.asked == [f"DELETE persistentvolumes/{NAME}", f"PATCH persistentvolumes/{NAME}"]
