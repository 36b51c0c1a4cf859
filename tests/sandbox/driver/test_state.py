"""The driver's storage: idempotence, sizes, room per segment, lists by page, and what is kept on disk."""

from pathlib import Path
from typing import Any

import pytest

from sandbox.driver.config import GIB, Config, Pool
from sandbox.driver.disk import Disk
from sandbox.driver.state import Refused, State, Wanted, page

EAST, WEST = {"zone": "east"}, {"zone": "west"}


def state(disk: Disk | None = None, **config: Any) -> State:
    return State(Config(**config), disk)


def test_create_is_idempotent_by_name() -> None:
    storage = state()
    first = storage.create_volume(Wanted("a", required=GIB))
    assert storage.create_volume(Wanted("a", required=GIB)) is first
    assert list(storage.volumes) == [first.id]


@pytest.mark.parametrize(
    ("again", "differs"),
    [
        (Wanted("a", required=3 * GIB), "size"),
        (Wanted("a", limit=GIB), "size"),
        (Wanted("a", required=2 * GIB, parameters={"tier": "slow"}), "parameters"),
        (Wanted("a", required=2 * GIB, block=True), "access type"),
        (Wanted("a", required=2 * GIB, segments=(WEST,)), "topology"),
    ],
    ids=["larger", "smaller", "parameters", "block", "elsewhere"],
)
def test_the_same_name_for_something_else_is_refused(again: Wanted, differs: str) -> None:
    storage = state(pools=(Pool(EAST), Pool(WEST)))
    storage.create_volume(Wanted("a", required=2 * GIB, segments=(EAST,)))
    with pytest.raises(Refused, match=f"ALREADY_EXISTS: .*{differs}"):
        storage.create_volume(again)


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        (Wanted("a"), GIB),
        (Wanted("a", required=7), 7),
        (Wanted("a", limit=7), 7),
        (Wanted("a", limit=9 * GIB), GIB),
        (Wanted("a", required=7, limit=7), 7),
    ],
    ids=["default", "required", "small limit", "large limit", "both"],
)
def test_size(wanted: Wanted, size: int) -> None:
    assert state().create_volume(wanted).size == size


@pytest.mark.parametrize(
    "wanted",
    [Wanted("a", required=11 * GIB), Wanted("a", required=2, limit=1), Wanted("a", required=-1), Wanted("a", limit=-1)],
    ids=["too large", "limit below", "negative", "negative limit"],
)
def test_a_size_that_cannot_be_had_is_out_of_range(wanted: Wanted) -> None:
    with pytest.raises(Refused, match="OUT_OF_RANGE"):
        state(pools=(Pool(largest_volume=10 * GIB),)).create_volume(wanted)


def test_preferred_segments_come_first_and_a_full_one_is_passed_over() -> None:
    storage = state(pools=(Pool(EAST, size=GIB), Pool(WEST, size=GIB)))
    assert storage.create_volume(Wanted("a", required=GIB, segments=(WEST, EAST))).segment == WEST
    assert storage.create_volume(Wanted("b", required=GIB, segments=(WEST, EAST))).segment == EAST
    with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
        storage.create_volume(Wanted("c", required=1, segments=(WEST, EAST)))


def test_room_is_counted_per_segment() -> None:
    storage = state(pools=(Pool(EAST, size=3 * GIB, largest_volume=2 * GIB), Pool(WEST, size=5 * GIB)))
    volume = storage.create_volume(Wanted("a", required=2 * GIB, segments=(EAST,)))
    assert storage.capacity(EAST) == (GIB, GIB)
    assert storage.capacity({}) == (6 * GIB, 5 * GIB)
    assert storage.capacity({"zone": "north"}) == (0, 0)
    storage.expand_volume(volume.id, 2 * GIB - 1, 0)
    storage.delete_volume(volume.id)
    storage.delete_volume(volume.id)
    assert storage.capacity(EAST) == (3 * GIB, 2 * GIB)


def test_expand_takes_room_and_knows_its_limits() -> None:
    storage = state(pools=(Pool(size=4 * GIB),))
    volume = storage.create_volume(Wanted("a", required=GIB))
    assert storage.expand_volume(volume.id, 3 * GIB, 0).size == 3 * GIB
    assert storage.capacity({}) == (GIB, GIB)
    for required, limit in ((5 * GIB, 0), (0, GIB)):
        with pytest.raises(Refused, match="OUT_OF_RANGE"):
            storage.expand_volume(volume.id, required, limit)


def test_modify_keeps_what_it_is_not_told() -> None:
    storage = state()
    volume = storage.create_volume(Wanted("a", mutable_parameters={"iops": "1"}))
    assert storage.modify_volume(volume.id, {"throughput": "2"}).mutable_parameters == {"iops": "1", "throughput": "2"}
    with pytest.raises(Refused, match=r"INVALID_ARGUMENT: .* colour"):
        storage.modify_volume(volume.id, {"colour": "red"})


def test_volumes_and_snapshots_outlive_the_process(tmp_path: Path) -> None:
    storage = state(Disk(tmp_path))
    volume = storage.create_volume(Wanted("a", required=GIB))
    (tmp_path / "volumes" / volume.id / "data" / "note").write_text("kept")
    snapshot = storage.create_snapshot("s", volume.id)
    gone = storage.create_volume(Wanted("b"))
    storage.delete_volume(gone.id)

    again = state(Disk(tmp_path))
    assert again.volumes == {volume.id: volume}
    assert again.snapshots == {snapshot.id: snapshot}
    assert again.capacity({}) == storage.capacity({})
    restored = again.create_volume(Wanted("c", source_snapshot=snapshot.id))
    assert (tmp_path / "volumes" / restored.id / "data" / "note").read_text() == "kept"
    assert restored.serial > snapshot.serial
    again.delete_snapshot(snapshot.id)
    assert not list(tmp_path.glob("snapshots/*"))


def test_a_copy_is_at_least_as_large_as_its_source() -> None:
    storage = state()
    source = storage.create_volume(Wanted("a", required=2 * GIB))
    assert storage.create_volume(Wanted("b", required=GIB, source_volume=source.id)).size == 2 * GIB
    with pytest.raises(Refused, match="OUT_OF_RANGE"):
        storage.create_volume(Wanted("c", limit=GIB, source_volume=source.id))
    with pytest.raises(Refused, match="NOT_FOUND"):
        storage.create_volume(Wanted("d", source_volume="gone"))


def test_a_page_token_survives_deletions() -> None:
    storage = state()
    volumes = [storage.create_volume(Wanted(name)) for name in "abcd"]
    first, token = page(storage.volumes.values(), 2, "")
    assert first == volumes[:2]
    storage.delete_volume(volumes[1].id)
    assert page(storage.volumes.values(), 2, token) == (volumes[2:], "")
    with pytest.raises(Refused, match="ABORTED"):
        page(storage.volumes.values(), 2, "nonsense")
