"""The storage below everything: any version that is remembered can be read again, whatever was written since."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.api.errors import ApiError
from sandbox.api.kinds import Kind
from sandbox.api.storage import Change, Key, Storage

KIND = Kind("Thing", "things")
KEYS: list[Key] = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z")]
STEPS = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=30)


def write(storage: Storage, key: Key, value: int) -> None:
    storage.write(KIND, key, {"kind": "Thing", "apiVersion": "v1", "metadata": {"name": key[1]}, "value": value})


def run(storage: Storage, steps: list[tuple[Key, bool]]) -> dict[int, dict[Key, int]]:
    """Do the steps (write or remove); returns what was there after each version."""
    there: dict[Key, int] = {}
    moments = {storage.number: dict(there)}
    for value, (key, removes) in enumerate(steps):
        if removes and key in there:
            version = storage.get(KIND, key)
            assert version is not None
            storage.remove(KIND, key, version.copy())
            del there[key]
        else:
            write(storage, key, value)
            there[key] = value
        moments[storage.number] = dict(there)
    return moments


@given(STEPS)
def test_every_remembered_version_can_be_listed(steps: list[tuple[Key, bool]]) -> None:
    storage = Storage()
    for number, there in run(storage, steps).items():
        order, objects = storage.of(KIND).at(number)
        assert list(order) == sorted(there)
        assert {key: objects[key].obj["value"] for key in order} == there


@given(STEPS)
def test_replaying_the_history_gives_the_present(steps: list[tuple[Key, bool]]) -> None:
    storage = Storage()
    moments = run(storage, steps)
    collection = storage.of(KIND)
    for number, there in moments.items():
        replayed = dict(there)
        for change in collection.since(collection.place_after(number)) or []:
            if change.deleted:
                del replayed[change.now.key]
            else:
                replayed[change.now.key] = change.now.obj["value"]
        assert replayed == moments[storage.number]


def test_what_is_compacted_is_refused() -> None:
    storage = Storage(history=3)
    for value in range(5):
        write(storage, KEYS[0], value)
    collection = storage.of(KIND)
    assert [change.number for change in collection.since(collection.place_after(3)) or []] == [4, 5, 6]
    with pytest.raises(ApiError, match=r"too old resource version: 2 \(3\)"):
        collection.at(2)
    assert collection.since(0) is None
    storage.compact()
    with pytest.raises(ApiError, match="too old"):
        collection.place_after(5)
    assert collection.since(collection.place_after(6)) == []


def test_bytes_follow_the_version_that_is_asked_for() -> None:
    kind = Kind("Thing", "things", "a.test", ("v2", "v1"), custom=True)
    storage = Storage()
    version = storage.write(kind, ("", "x"), {"kind": "Thing", "apiVersion": "a.test/v1", "metadata": {"name": "x"}})
    assert version.body(kind, "v2").startswith(b'{"kind":"Thing","apiVersion":"a.test/v2","metadata"')
    assert version.copy() == version.obj
    assert version.copy()["metadata"] is not version.obj["metadata"]


def test_listeners_hear_every_change_until_they_stop() -> None:
    storage, heard = Storage(), list[Any]()

    def listen(kind: Kind, change: Change) -> None:
        heard.append((kind.name, change.number, change.deleted))

    stop = storage.listen(listen)
    write(storage, KEYS[0], 1)
    stop()
    write(storage, KEYS[0], 2)
    assert heard == [("Thing", 2, False)]
