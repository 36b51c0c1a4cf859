"""Objects for which nothing is to be done: a store keeps a few bytes of each, and everybody is told as before."""

import pytest
import trio
from trio.testing import MockClock

from csi_provisioner.kube import cold
from csi_provisioner.kube.cold import Settled
from csi_provisioner.kube.reflector import COOL, RESYNC, Reflector
from csi_provisioner.kube.store import Fresh, Store
from csi_provisioner.model.kubernetes import ClaimSpec, ObjectMeta, PersistentVolumeClaim
from tests.kube.fake_api import FakeApi
from tests.kube.objects import Told, label, ours, uid_of
from tests.kube.objects import claim as made

Claims = Store[PersistentVolumeClaim]
KEY, UID = "ns/a", uid_of("a")
HANDLE = "handle-1"


def claim(
    name: str, version: int | str, *, uid: str = "", to: str | None = "pv", handle: str = HANDLE
) -> PersistentVolumeClaim:
    """Nothing is to be done for one that is bound `to` something; several share a `handle`."""
    found = made(name, version, uid=uid or uid_of(name))
    found.spec = ClaimSpec(volumeName=to, storageClassName=handle)
    return found


def note(claim: PersistentVolumeClaim) -> bytes | None:
    return (claim.spec.storageClassName or "").encode() if claim.spec.volumeName else None


def sketch(meta: ObjectMeta, note: bytes) -> PersistentVolumeClaim:
    return PersistentVolumeClaim(metadata=meta, spec=ClaimSpec(storageClassName=note.decode()))


class Failing:
    now = True

    def __call__(self, _key: str, _old: PersistentVolumeClaim | None, _new: PersistentVolumeClaim | None) -> None:
        if self.now:
            raise ValueError("a defect")


class World:
    """A store whose handler notes; `held` are UIDs that somebody's memory refers to."""

    def __init__(self, *, named: bool = True, listed: bool = True) -> None:
        self.held: set[str] = set()
        self.told: Told = []
        self.heard: list[tuple[PersistentVolumeClaim | None, PersistentVolumeClaim | None]] = []
        settled = Settled(note, lambda _key, uid: uid in self.held, sketch)
        self.store: Claims = Store(
            project=ours, index="uid", settled=settled, shared=lambda claim: claim.spec.storageClassName, named=named
        )
        self.store.subscribe(self.hear)
        if listed:
            self.replace(10)

    def hear(self, key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        self.told.append((key, label(old), label(new)))
        self.heard.append((old, new))

    def add_failing(self) -> "Failing":
        """Another handler, beside one before it and one after it that do not fail."""
        failing = Failing()
        self.store.subscribe(failing)
        self.store.subscribe(lambda _key, _old, _new: None)
        return failing

    def replace(self, version: int, *claims: PersistentVolumeClaim) -> Fresh[PersistentVolumeClaim]:
        fresh: Fresh[PersistentVolumeClaim] = {}
        for each in claims:
            self.store.admit(each, fresh)
        self.store.tell(self.store.replace(fresh, str(version)))
        self.store.cool(list(self.store.warm))
        return fresh

    @property
    def records(self) -> list[str]:
        return list(self.store._cold)


@pytest.fixture
def world() -> World:
    """With a record of a at 11."""
    world = World()
    world.store.put(claim("a", 11))
    world.told.clear()
    world.heard.clear()
    assert world.records == [KEY]
    return world


def test_a_record_is_known_by_key_and_uid_and_counted_and_not_read(world: World) -> None:
    store = world.store
    assert store.get(KEY) is None
    assert store.by_uid(UID) is None
    assert store.values() == []
    assert KEY in store
    assert len(store) == 1
    assert store.knows(KEY, UID)
    assert store.has(UID)
    assert not store.knows(KEY, uid_of("b"))
    assert not store.has(uid_of("b"))
    assert not store.knows("ns/b", UID)
    store.put(claim("b", 12, to=None))
    assert store.knows("ns/b", uid_of("b"))
    assert store.has(uid_of("b"))
    assert len(store) == 2


def test_that_an_object_settles_is_one_change_and_no_deletion() -> None:
    world = World()
    world.store.put(claim("a", 11, to=None))
    world.store.put(claim("a", 12))
    assert world.told == [(KEY, None, f"{UID}@11"), (KEY, f"{UID}@11", f"{UID}@12")]
    assert [new.spec.volumeName for _old, new in world.heard if new is not None] == [None, "pv"]
    assert world.records == [KEY]


def test_each_event_decides_anew(world: World) -> None:
    world.store.put(claim("a", 12))
    assert world.records == [KEY]
    world.store.put(claim("a", 13, to=None))
    assert world.records == []
    assert label(world.store.by_uid(UID)) == f"{UID}@13"
    assert world.told == [(KEY, f"{UID}@11", f"{UID}@12"), (KEY, f"{UID}@12", f"{UID}@13")]
    assert world.store.get(KEY) is world.heard[-1][1]


def test_what_was_shown_before_does_not_take_a_record_back(world: World) -> None:
    for repeat in (claim("a", 11), claim("a", 11, to=None), claim("a", 9, to=None)):
        world.store.put(repeat)
    assert world.told == []
    assert world.records == [KEY]
    world.store.drop(claim("a", 10, uid=uid_of("before")))
    assert world.records == [KEY], "of the one that had the name before"


def test_a_deletion_is_told_with_the_object_of_the_event(world: World) -> None:
    gone = claim("a", 12)
    world.store.drop(gone)
    assert world.told == [(KEY, f"{UID}@12", None)]
    assert world.heard[0][0] is gone
    assert KEY not in world.store
    assert len(world.store) == 0
    world.store.put(claim("a", 11))
    assert KEY not in world.store, "what was deleted does not come back"


def test_a_deletion_that_only_a_list_tells_comes_with_a_sketch(world: World) -> None:
    world.replace(20)
    [(old, new)] = world.heard
    assert old is not None
    assert new is None
    assert old.metadata == ObjectMeta("a", "ns", UID, "11")
    assert old.spec.storageClassName == HANDLE
    assert world.store.sharing(HANDLE) == []


def test_a_name_that_is_taken_again_is_told_as_a_deletion_first(world: World) -> None:
    second = uid_of("second")
    world.store.put(claim("a", 12, uid=second))
    assert world.told == [(KEY, f"{UID}@11", None), (KEY, None, f"{second}@12")]
    assert world.store.knows(KEY, second)
    assert not world.store.knows(KEY, UID)


def test_a_list_tells_what_has_changed_of_records_whole(world: World) -> None:
    world.store.put(claim("b", 12))
    world.told.clear()
    world.heard.clear()
    fresh = world.replace(20, claim("a", 11), claim("b", 15))
    assert world.told == [("ns/b", f"{uid_of('b')}@12", f"{uid_of('b')}@15")]
    assert world.heard[0][1] is fresh["ns/b"], "whole"
    assert world.records == [KEY, "ns/b"]
    world.replace(30, claim("a", 25, to=None), claim("b", 15))
    assert label(world.store.get(KEY)) == f"{UID}@25"
    assert world.records == ["ns/b"]


def test_the_first_list_is_in_records_page_by_page_and_tells_only_of_the_others() -> None:
    world = World(listed=False)
    world.held = {uid_of("c")}
    fresh = world.replace(20, claim("a", 11), claim("b", 12, to=None), claim("c", 13))
    assert [type(each) for each in fresh.values()] == [bytes, PersistentVolumeClaim, PersistentVolumeClaim]
    assert [key for key, _old, _new in world.told] == ["ns/b", "ns/c"]
    assert world.records == [KEY]
    assert list(world.store.warm) == ["ns/c"]


def test_what_is_held_stays_whole_until_it_is_let_go() -> None:
    world = World()
    world.held = {UID}
    world.store.put(claim("a", 11))
    world.store.cool(list(world.store.warm))
    assert label(world.store.get(KEY)) == f"{UID}@11"
    world.held.clear()
    world.store.cool(list(world.store.warm))
    assert world.records == [KEY]
    assert world.store.warm == {}
    assert len(world.told) == 1, "that it is let go is told to nobody"


def test_what_we_wrote_stays_readable_until_the_watch_has_passed_it() -> None:
    world = World()
    world.store.remember(claim("a", 12))
    world.store.put(claim("a", 11))
    assert label(world.store.get(KEY)) == f"{UID}@12"
    world.store.put(claim("a", 12))
    assert world.records == [KEY]
    world.store.remember(claim("a", 14))
    world.store.reached("100")
    assert label(world.store.get(KEY)) == f"{UID}@14", "a server that lags says it too early"
    assert len(world.store) == 1


def test_a_resync_tells_nothing_of_records_and_settles_the_others(world: World) -> None:
    world.held = {uid_of("b")}
    world.store.put(claim("b", 12))
    world.told.clear()
    world.held.clear()
    for key in world.store.shown_keys():
        world.store.replay(key)
    assert [key for key, _old, _new in world.told] == ["ns/b"]
    assert world.records == [KEY, "ns/b"]


def test_what_a_handler_failed_on_stays_whole_to_be_told_again() -> None:
    world = World()
    handler = world.add_failing()
    world.store.put(claim("a", 11))
    world.store.cool(list(world.store.warm))
    assert world.store.shown_keys() == [KEY]
    handler.now = False
    world.store.replay(KEY)
    assert world.records == [KEY]


def test_what_a_handler_failed_on_stays_whole_though_a_list_before_was_to_make_it_a_record() -> None:
    world = World()
    handler = world.add_failing()
    for each in (False, True):
        handler.now = each
        world.store.doubt()
        fresh: Fresh[PersistentVolumeClaim] = {}
        world.store.admit(claim("a", 20), fresh)
        world.store.tell(world.store.replace(fresh, "20"))
    world.store.cool([KEY])
    assert world.store.shown_keys() == [KEY]
    handler.now = False
    world.store.replay(KEY)
    assert world.records == [KEY]


def test_names_of_foreign_objects_are_kept_only_where_they_are_asked_for() -> None:
    world = World(named=False)
    world.store.put(made("f", 11, foreign=True))
    world.replace(20, made("f", 11, foreign=True))
    assert "ns/f" not in world.store
    assert world.store._foreign == {}
    world.store.put(claim("a", 21))
    world.store.put(made("a", 23, uid=UID, foreign=True))
    world.store.put(claim("a", 22, to=None))
    assert world.store.get(KEY) is None, "an older state of one that was ours"
    assert [new for _key, _old, new in world.told] == [f"{UID}@21", None]


def test_one_that_cannot_be_read_stays_a_record(world: World) -> None:
    fresh: Fresh[PersistentVolumeClaim] = {}
    world.store.keep(KEY, fresh)
    world.store.tell(world.store.replace(fresh, "20"))
    assert world.told == []
    assert world.records == [KEY]


@pytest.mark.parametrize(
    ("uid", "version"), [("uid-a", "11"), (uid_of("j").upper(), "11"), (UID, "x1"), (UID, "9" * 25)]
)
def test_what_is_not_as_the_api_numbers_it_stays_whole(uid: str, version: str) -> None:
    world = World(listed=False)
    world.store.put(claim("a", version, uid=uid))
    world.store.cool(list(world.store.warm))
    assert world.store.get(KEY) is not None
    assert world.store.warm == {}


def test_a_record_tells_uid_and_version_again() -> None:
    meta = ObjectMeta("a", "ns", UID, str(2**63))
    record = cold.packed(meta, b"note")
    assert record is not None
    assert cold.meta_of(KEY, record) == meta
    assert record[cold.HEAD :] == b"note"
    assert cold.meta_of("a", record).namespace is None


def test_objects_that_share_something_are_found_whole_and_as_records(world: World) -> None:
    store = world.store
    store.put(claim("b", 12, to=None))
    store.put(claim("c", 13))
    store.put(claim("d", 14, handle="other"))
    assert [each.metadata.name for each in store.sharing(HANDLE)] == ["a", "b", "c"]
    store.put(claim("b", 15, handle="other"))
    store.drop(claim("c", 16))
    assert [each.metadata.name for each in store.sharing(HANDLE)] == ["a"]
    assert [each.metadata.name for each in store.sharing("other")] == ["d", "b"]
    assert store.sharing("") == []
    for name in "abd":
        store.drop(claim(name, 20))
    assert store._sharing._keys == {}


def test_what_a_first_list_shares_is_found_once_the_list_is_whole() -> None:
    world = World(listed=False)
    fresh: Fresh[PersistentVolumeClaim] = {}
    for each in (claim("a", 11), claim("b", 12, to=None), claim("c", 13, handle="")):
        world.store.admit(each, fresh)
    assert world.store.sharing(HANDLE) == []
    world.store.tell(world.store.replace(fresh, "20"))
    assert [each.metadata.name for each in world.store.sharing(HANDLE)] == ["a", "b"]
    world.replace(21, claim("a", 11), claim("b", 12, to=None))
    assert [each.metadata.name for each in world.store.sharing(HANDLE)] == ["a", "b"]
    world.replace(22)
    assert world.store._sharing._keys == {}


def test_what_only_its_hash_shares_is_not_found() -> None:
    world = World()
    world.store.put(claim("a", 11))
    world.store._sharing._keys[hash("another")] = KEY
    assert world.store.sharing("another") == []


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def test_a_reflector_looks_again_at_what_was_held(anyio_backend: object) -> None:
    api, world = FakeApi(), World(listed=False)
    world.held = {uid_of("a")}
    api.objects["a"] = claim("a", 5)
    async with trio.open_nursery() as nursery:
        await nursery.start(Reflector(api, PersistentVolumeClaim, world.store).run)
        api.show(claim("b", 20))
        await trio.sleep(3 * COOL)
        assert world.records == ["ns/b"]
        world.held.clear()
        await trio.sleep(1.5 * COOL)
        assert sorted(world.records) == ["ns/a", "ns/b"]
        heard = len(world.told)
        await trio.sleep(2 * RESYNC)
        assert len(world.told) == heard, "there is nothing to tell again"
        nursery.cancel_scope.cancel()
