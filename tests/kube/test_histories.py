"""Random histories: whatever happens to the cluster, the connection and our own writes, the store ends where the
server is, never takes back what it knew, and handlers hear every change as an unbroken chain."""

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from csi_provisioner.kube.cold import Settled
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.reflector import Reflector
from csi_provisioner.kube.store import Store
from csi_provisioner.model.kubernetes import ObjectMeta, PersistentVolumeClaim
from tests.kube.fake_api import GONE, NO_ANSWER, FakeApi
from tests.kube.objects import label, ours, uid_of

NAMES = st.sampled_from("abcd")
MOMENTS = st.sampled_from([0.0, 0.005, 0.02, 1.0, 61.0])
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["write", "write foreign", "delete", "write and remember", "remember late"]), NAMES),
    st.tuples(st.just("wait"), MOMENTS),
    st.tuples(st.sampled_from(["bookmark", "close", "cut", "expire", "compact", "deaf", "hear", "refuse"]), st.none()),
    st.tuples(st.just("repeat"), st.integers(1, 3)),
    st.tuples(st.sampled_from(["lag", "catch_up"]), st.none()),
)


def sketch(meta: ObjectMeta, _note: bytes) -> PersistentVolumeClaim:
    return PersistentVolumeClaim(metadata=meta)


class World:
    """A cluster, a store that follows it, and what handlers have heard. Objects of an odd version have settled, and are
    `held` where it is divisible by 3, until `calm`."""

    def __init__(self) -> None:
        self.api, self.calm = FakeApi(make_uid=uid_of), False
        settled = Settled(lambda obj: b"" if int(obj.metadata.resourceVersion) % 2 else None, self.is_held, sketch)
        self.store: Store[PersistentVolumeClaim] = Store(
            project=ours, index="uid", settled=settled, shared=lambda _claim: "all"
        )
        self.store.subscribe(self.hear)
        self.heard: dict[str, str | None] = {}
        self.answers: list[PersistentVolumeClaim] = []  # of our own writes, not remembered yet
        self.newest: dict[str, int] = {}
        self.dead: set[str] = set()

    def is_held(self, key: str, _uid: str) -> bool:
        obj = self.store.get(key)
        return not self.calm and obj is not None and int(obj.metadata.resourceVersion) % 3 == 0

    def hear(self, key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        before = self.heard.get(key)
        assert before == label(old) or self.is_of_a_record(before, old, new), "a change was left out"
        self.heard[key] = label(new)
        if old is not None and (key not in self.store or (new is not None and old.metadata.uid != new.metadata.uid)):
            self.dead.add(old.metadata.uid)
        self.never_goes_back()

    def is_of_a_record(
        self, before: str | None, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> bool:
        """The first list tells nothing of those; their deletion comes with the object of the event."""
        if old is None:
            return False
        uid, _, version = (before or f"{old.metadata.uid}@{old.metadata.resourceVersion}").rpartition("@")
        settled = int(version) % 2 == 1 or (before is None and new is None)
        return settled and uid == old.metadata.uid and (before is None or new is None)

    async def act(self, what: str, on: object) -> None:
        api, name = self.api, str(on)
        match what:
            case "write" | "write foreign":
                api.write(name, foreign=what == "write foreign")
            case "delete":
                api.delete(name)
            case "write and remember":
                self.store.remember(api.write(name))
            case "remember late":
                self.answers.append(api.write(name))
            case "wait":
                await trio.sleep(float(name))
                while self.answers:
                    self.store.remember(self.answers.pop())
            case "bookmark" | "compact" | "lag" | "catch_up":
                getattr(api, what)()
            case "close" | "cut" | "expire":
                api.end_watches({"close": None, "cut": NO_ANSWER, "expire": GONE}[what])
            case "deaf" | "hear":
                api.deaf = what == "deaf"
            case "refuse":
                api.list_errors.append(KubeError(503))
                api.watch_errors.append(NO_ANSWER)
            case "repeat":
                api.repeat(int(name))

    def never_goes_back(self) -> None:
        for obj in self.store.values():
            uid, version = obj.metadata.uid, int(obj.metadata.resourceVersion)
            assert version >= self.newest.get(uid, 0), "an older state took the place of a newer one"
            self.newest[uid] = version
            assert self.store.by_uid(uid) in (obj, None), "none until the watch has shown it"
            assert uid not in self.dead, "what was deleted came back"

    def same_everywhere(self) -> None:
        expected = {f"ns/{n}": label(o) for n, o in self.api.objects.items() if ours(o)}
        records = {key for key, shown in expected.items() if shown and int(shown.rpartition("@")[2]) % 2}
        assert {f"ns/{o.metadata.name}": label(o) for o in self.store.sharing("all")} == expected
        assert {f"ns/{o.metadata.name}" for o in self.store.values()} == expected.keys() - records
        assert expected.items() >= {key: told for key, told in self.heard.items() if told}.items()
        assert self.heard.keys() >= expected.keys() - records
        assert all(self.store.by_uid(o.metadata.uid) is o for o in self.store.values())
        assert len(self.store._uids or ()) == len(self.store.values()), "the index does not forget"
        assert len(self.store) == len(expected)
        assert all((f"ns/{name}" in self.store) == (name in self.api.objects) for name in "abcd")


async def live(actions: list[tuple[str, object]]) -> None:
    world = World()
    world.api.write("a")
    reflector = Reflector(world.api, PersistentVolumeClaim, world.store, page=1, random=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reflector.run)
        for what, on in actions:
            await world.act(what, on)
            world.never_goes_back()
        world.api.deaf = False
        world.api.catch_up()
        world.calm = True
        await world.act("wait", 400)
        world.never_goes_back()
        world.same_everywhere()
        nursery.cancel_scope.cancel()


@settings(max_examples=200)
@given(st.lists(ACTIONS, max_size=30))
def test_the_store_ends_where_the_server_is(actions: list[tuple[str, object]]) -> None:
    trio.run(live, actions, clock=MockClock(autojump_threshold=0))
