"""Capacity.md 6 and 9: pairs, and what the events of objects mean."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.capacity import objects
from csi_provisioner.capacity.desired import Desired, Work
from csi_provisioner.capacity.objects import Pair
from csi_provisioner.capacity.segments import Segment
from csi_provisioner.model import kubernetes as k8s

from .objects import PUBLICATION, Z1, Z2, capacity, desired, known, storage_class, surplus

FAST, SLOW = storage_class(), storage_class("slow")
IMMEDIATE = storage_class("at-once", "Immediate")
PAIR = Pair(Z1, "fast")

# ---- section 6: pairs

ELIGIBLE = [
    ("late-binding", FAST, False, True),
    ("unset-mode", storage_class(mode=None), False, True),
    ("immediate", IMMEDIATE, False, False),
    ("immediate-with-flag", IMMEDIATE, True, True),
    ("other-driver", storage_class(provisioner="other"), True, False),
    ("in-tree-name", storage_class(provisioner="kubernetes.io/aws-ebs"), True, False),
]


@pytest.mark.parametrize(
    ("given_class", "immediate", "expected"),
    [row[1:] for row in ELIGIBLE],
    ids=[f"capacity-6-{row[0]}" for row in ELIGIBLE],
)
def test_eligible_classes(given_class: k8s.StorageClass, immediate: bool, expected: bool) -> None:
    assert len(desired(Z1, classes=(given_class,), immediate=immediate).pairs()) == expected


def test_two_segments_and_two_classes_make_four_pairs() -> None:
    """capacity.md 9."""
    assert set(desired(Z1, Z2, classes=(FAST, SLOW)).pairs()) == {
        Pair(segment, name) for segment, name in product((Z1, Z2), ("fast", "slow"))
    }


def test_a_segment_without_class_or_a_class_without_segment_makes_no_pair() -> None:
    """capacity.md 9."""
    assert desired(Z1, classes=()).pairs() == []
    assert desired().pairs() == []


def test_an_immediate_class_does_not_end_the_loop() -> None:
    """capacity.md 15.1."""
    made = desired(classes=(IMMEDIATE, FAST))
    assert made.segments_changed(frozenset({Z1})) == [PAIR]


def test_pairs_come_and_go_with_their_segments() -> None:
    """capacity.md 6."""
    made = desired(Z1, classes=(FAST, SLOW))
    made.object_changed(None, capacity("u"))
    work = made.segments_changed(frozenset({Z2}))
    assert set(work) == {Pair(Z2, "fast"), Pair(Z2, "slow"), surplus("u")}
    assert set(made.pairs()) == {Pair(Z2, "fast"), Pair(Z2, "slow")}


def test_a_class_update_refreshes_its_pairs() -> None:
    """capacity.md 6."""
    made = desired(Z1)
    made.object_changed(None, capacity("u"))
    assert made.class_changed("fast", FAST, FAST) == [PAIR]
    assert known(made) == capacity("u")


def test_pairs_go_with_their_class() -> None:
    """capacity.md 6."""
    made = desired(Z1, Z2)
    made.object_changed(None, capacity("u"))
    assert made.class_changed("fast", FAST, None) == [surplus("u")]
    assert made.pairs() == []
    assert made.known(PAIR) is None
    assert made.class_changed("fast", FAST, None) == []


def test_a_class_replaced_by_one_of_another_driver_loses_its_pairs() -> None:
    """capacity.md 6."""
    made = desired(Z1)
    made.object_changed(None, capacity("u"))
    assert made.class_changed("fast", FAST, storage_class(provisioner="other")) == [surplus("u")]


# ---- section 9: events of objects


def test_an_object_that_fits_a_pair_is_adopted() -> None:
    """capacity.md 9."""
    made = desired(Z1)
    assert made.object_changed(None, capacity("u", capacity="7")) == []
    assert known(made) == capacity("u", capacity="7")


def test_a_new_version_is_remembered_without_work() -> None:
    """capacity.md 9."""
    made = desired(Z1)
    made.object_changed(None, capacity("u"))
    newer = capacity("u", capacity="7", version="2")
    assert made.object_changed(capacity("u"), newer) == []
    assert known(made) == newer


def test_the_uid_goes_before_the_content() -> None:
    """Somebody changed a known object to say something else: it is still the pair's, and is corrected at a poll.
    capacity.md 9."""
    made = desired(Z1, Z2)
    made.object_changed(None, capacity("u"))
    assert made.object_changed(None, capacity("u", Z2)) == []
    assert known(made) == capacity("u", Z2)
    assert known(made, Z2) is None


def test_a_second_object_of_a_pair_is_surplus() -> None:
    """capacity.md 9."""
    made = desired(Z1)
    made.object_changed(None, capacity("u"))
    assert made.object_changed(None, capacity("v")) == [surplus("v")]
    assert known(made) == capacity("u")


@pytest.mark.parametrize(
    "obj",
    [
        capacity("u", Z2),
        capacity("u", (*Z1, ("x", "y"))),
        capacity("u", ()),
        capacity("u", class_name="gone"),
        capacity("u", nodeTopology=None),
    ],
    ids=[
        "capacity-9-other-segment",
        "capacity-9-more-keys",
        "capacity-9-empty-segment",
        "capacity-9-other-class",
        "capacity-9-no-selector",
    ],
)
def test_obsolete(obj: k8s.CSIStorageCapacity) -> None:
    assert desired(Z1).object_changed(None, obj) == [surplus("u")]


def test_a_pair_whose_object_lost_our_labels_needs_a_new_one() -> None:
    """capacity.md 9."""
    made = desired(Z1)
    made.object_changed(None, capacity("u"))
    assert made.object_changed(capacity("u"), capacity("u", labels=None)) == [PAIR]
    assert known(made) is None


@pytest.mark.parametrize(
    "labels", [None, {"csi.storage.k8s.io/drivername": "disk.acme.test"}], ids=["none", "no-manager"]
)
def test_unmanaged_objects_are_never_touched(labels: dict[str, str] | None) -> None:
    """capacity.md 9."""
    made = desired(Z1)
    foreign = capacity("u", labels=labels)
    assert made.object_changed(None, foreign) == []
    assert made.object_changed(foreign, None) == []
    assert made.obsolete([foreign]) == 0
    assert known(made) is None


def test_a_pair_whose_object_was_deleted_needs_a_new_one() -> None:
    """capacity.md 9."""
    made = desired(Z1)
    made.object_changed(None, capacity("u"))
    assert made.object_changed(capacity("u"), None) == [PAIR]
    assert known(made) is None
    assert made.object_changed(capacity("u"), None) == []


def test_a_change_of_the_uid_is_a_deletion_and_a_creation() -> None:
    """capacity.md 9."""
    made = desired(Z1)
    made.object_changed(None, capacity("u"))
    again = capacity("v", capacity="9", name="csisc-u")
    assert made.object_changed(capacity("u"), again) == [PAIR]
    assert known(made) == again


def test_an_object_that_comes_after_its_pair_went_is_obsolete() -> None:
    """capacity.md 6."""
    made = desired(Z1)
    made.segments_changed(frozenset())
    assert made.object_changed(None, capacity("u")) == [surplus("u")]


def test_a_pair_that_came_back_gets_a_new_object() -> None:
    """capacity.md 8."""
    made = desired(Z1)
    made.object_changed(None, capacity("u"))
    assert made.segments_changed(frozenset()) == [surplus("u")]
    assert made.segments_changed(frozenset({Z1})) == [PAIR]
    assert known(made) is None
    assert made.object_changed(capacity("u"), None) == []


def test_pairs_and_objects_are_counted_for_the_metrics() -> None:
    """capacity.md 12."""
    made = desired(Z1, Z2, classes=(FAST, SLOW))
    cached = [capacity("a"), capacity("b", Z2), capacity("c", class_name="gone"), capacity("d", Z2, "gone")]
    work = [item for obj in cached for item in made.object_changed(None, obj)]
    assert work == [surplus("c"), surplus("d")]
    assert (made.goal(), made.current(), made.obsolete(cached)) == (4, 2, 2)
    cached = [*cached[:2], capacity("e", class_name="slow"), capacity("f", Z2, "slow")]
    for obj in cached[2:]:
        made.object_changed(None, obj)
    assert (made.goal(), made.current(), made.obsolete([*cached, capacity("duplicate")])) == (4, 4, 0)


def test_equal_segments_are_one_pair() -> None:
    """capacity.md 15.17."""
    made = desired(Z1)
    again: Segment = tuple(Z1)
    assert made.segments_changed(frozenset({again})) == []
    assert made.pairs() == [PAIR]


# ---- whatever happens, in whatever order

SEGMENTS = st.frozensets(st.sampled_from([Z1, Z2, ()]), max_size=3)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("segments"), SEGMENTS),
        st.tuples(st.just("class"), st.sampled_from([("fast", FAST), ("fast", None), ("slow", SLOW), ("slow", None)])),
        st.tuples(
            st.just("stray"), st.tuples(st.sampled_from([Z1, Z2, ()]), st.sampled_from(["fast", "slow", "gone"]))
        ),
        st.tuples(st.just("lost"), st.integers(0, 5)),
        st.tuples(st.just("work"), st.just(None)),
    ),
    max_size=25,
)


class World:
    """A server that shows each write at once, and a worker that does all work there is."""

    def __init__(self) -> None:
        self.desired = Desired(PUBLICATION, immediate_binding=False)
        self.objects: dict[str, k8s.CSIStorageCapacity] = {}
        self.work: list[Work] = []
        self.made = 0

    def show(self, old: k8s.CSIStorageCapacity | None, new: k8s.CSIStorageCapacity | None) -> None:
        self.work += self.desired.object_changed(old, new)

    def create(self, segment: Segment, class_name: str) -> None:
        self.made += 1
        obj = capacity(str(self.made), segment, class_name)
        self.objects[obj.metadata.uid] = obj
        self.show(None, obj)

    def remove(self, uid: str) -> None:
        if obj := self.objects.pop(uid, None):
            self.show(obj, None)

    def happen(self, what: str, value: object) -> None:
        match what, value:
            case "segments", frozenset():
                self.work += self.desired.segments_changed(value)
            case "class", (name, new):
                self.work += self.desired.class_changed(name, None, new)
            case "stray", (segment, name):
                self.create(segment, name)
            case "lost", int():
                self.remove(next(iter(sorted(self.objects)[value:]), ""))
            case _:
                self.settle()

    def settle(self) -> None:
        while self.work:
            item = self.work.pop(0)
            if isinstance(item, Pair):
                if (found := self.desired.known(item)) and found[1] is None:
                    self.create(item.segment, item.class_name)
            else:
                self.remove(next((uid for uid, obj in self.objects.items() if obj.metadata.name == item), ""))


@given(EVENTS)
def test_one_object_for_each_pair_in_the_end(events: list[tuple[str, object]]) -> None:
    """capacity.md 9."""
    world = World()
    for what, value in events:
        world.happen(what, value)
    world.settle()
    pairs = [objects.pair_of(obj) for obj in world.objects.values()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == set(world.desired.pairs())
    assert world.desired.goal() == world.desired.current() == len(pairs)
    assert world.desired.obsolete(world.objects.values()) == 0
