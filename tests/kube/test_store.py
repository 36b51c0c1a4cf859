"""The store: what readers see and handlers hear of lists, watch events and our own writes."""

import pytest

from csi_provisioner.kube.store import GRAVES, Store, version_number
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from tests.kube.objects import Told, claim, label, ours

Claims = Store[PersistentVolumeClaim]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def store(told: Told) -> Claims:
    """Holds a at 5 and b at 6, listed at 10; a handler that notes is subscribed after that."""
    store: Claims = Store(project=ours, index="uid")
    replace(store, 10, claim("a", 5), claim("b", 6), claim("f", 4, foreign=True))
    store.subscribe(lambda key, old, new: told.append((key, label(old), label(new))))
    return store


def replace(store: Claims, version: int, *claims: PersistentVolumeClaim) -> None:
    fresh: dict[str, PersistentVolumeClaim | None] = {}
    for obj in claims:
        store.admit(obj, fresh)
    store.tell(store.replace(fresh, str(version)))
    store.cool(list(store.warm))


def shown(store: Claims) -> dict[str, str | None]:
    return {f"{o.metadata.namespace}/{o.metadata.name}": label(o) for o in store.values()}


# ---- what the watch shows


def test_what_is_added_changed_or_deleted_is_shown_and_told(store: Claims, told: Told) -> None:
    store.put(claim("c", 11))
    store.put(claim("a", 12))
    store.drop(claim("b", 13))
    assert shown(store) == {"ns/a": "uid-a@12", "ns/c": "uid-c@11"}
    assert told == [("ns/c", None, "uid-c@11"), ("ns/a", "uid-a@5", "uid-a@12"), ("ns/b", "uid-b@6", None)]
    assert len(store) == 2
    assert store.by_uid("uid-b") is None
    assert label(store.by_uid("uid-a")) == "uid-a@12"


def test_foreign_objects_leave_their_key_only(store: Claims, told: Told) -> None:
    assert "ns/f" in store
    assert store.is_foreign("ns/f")
    assert store.get("ns/f") is None
    assert store.by_uid("uid-f") is None
    assert len(store) == 2
    store.put(claim("f", 11, foreign=True))
    store.drop(claim("f", 12, foreign=True))
    assert told == []
    assert "ns/f" not in store
    assert not store.is_foreign("ns/f")


def test_an_object_may_become_ours_and_foreign_again(store: Claims, told: Told) -> None:
    store.put(claim("f", 11))
    assert not store.is_foreign("ns/f")
    store.put(claim("f", 12, foreign=True))
    assert told == [("ns/f", None, "uid-f@11"), ("ns/f", "uid-f@11", None)]
    assert "ns/f" in store
    assert store.get("ns/f") is None


def test_repeats_of_what_was_shown_are_ignored(store: Claims, told: Told) -> None:
    store.put(claim("a", 12))
    store.put(claim("a", 12))
    assert told == [("ns/a", "uid-a@5", "uid-a@12")]
    store.drop(claim("b", 13))
    told.clear()
    for repeat in (claim("a", 11), claim("a", 12), claim("b", 6)):
        store.put(repeat)
    store.drop(claim("b", 13))
    assert told == []
    assert shown(store) == {"ns/a": "uid-a@12"}


def test_an_old_deletion_does_not_take_the_next_object_of_the_name(store: Claims) -> None:
    store.drop(claim("a", 11))
    store.put(claim("a", 12, uid="second"))
    store.drop(claim("a", 11))
    assert shown(store)["ns/a"] == "second@12"


def test_a_deletion_is_final_for_its_uid_also_at_an_old_version(store: Claims) -> None:
    store.put(claim("c", 11))
    store.drop(claim("a", 5))
    assert "ns/a" not in store


def test_a_bookmark_does_not_hide_what_comes_after_it(store: Claims, told: Told) -> None:
    store.reached("100")
    store.put(claim("c", 50))
    store.put(claim("a", 60))
    store.drop(claim("b", 70))
    assert told == [("ns/c", None, "uid-c@50"), ("ns/a", "uid-a@5", "uid-a@60"), ("ns/b", "uid-b@6", None)]
    store.remember(claim("b", 65))
    store.remember(claim("d", 99))
    assert shown(store) == {"ns/a": "uid-a@60", "ns/c": "uid-c@50"}, "an answer that may be late is no news"


def test_a_bookmark_does_not_take_back_what_we_wrote(store: Claims) -> None:
    store.remember(claim("a", 12))
    store.reached("100")
    assert label(store.get("ns/a")) == "uid-a@12"
    store.put(claim("a", 12))
    store.drop(claim("a", 13))
    assert "ns/a" not in store


def test_what_was_deleted_does_not_come_back_with_a_server_that_lags(store: Claims, told: Told) -> None:
    store.put(claim("c", 50))
    store.drop(claim("c", 60))
    store.put(claim("c", 70, uid="second"))
    store.put(claim("f", 80))
    store.put(claim("f", 90, foreign=True))
    told.clear()
    for repeat in (claim("c", 50), claim("c", 70, uid="second"), claim("f", 80), claim("f", 90, foreign=True)):
        store.put(repeat)
    store.drop(claim("c", 60))
    assert told == []
    assert shown(store)["ns/c"] == "second@70"
    store.drop(claim("c", 95, uid="second"))
    store.put(claim("c", 70, uid="second"))
    assert "ns/c" not in store
    replace(store, 100, claim("c", 70, uid="second"), claim("f", 4, foreign=True))
    assert "ns/c" in store, "a list is right whatever came before"
    store.put(claim("d", 99))
    store.drop(claim("f", 98, uid="older"))
    assert "ns/d" not in store, "deleted before the list"
    assert "ns/f" in store


def test_of_deleted_objects_only_the_last_are_remembered(store: Claims) -> None:
    for number in range(3 * GRAVES):
        store.put(claim("c", 20 + 2 * number, uid=str(number)))
        store.drop(claim("c", 21 + 2 * number, uid=str(number)))
    assert len(store._gone) == GRAVES


# ---- what is handed in may be defective


def test_a_handler_that_fails_ends_nothing_and_is_said_once(
    store: Claims, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, heard = True, list[str]()

    def fails(key: str, _old: PersistentVolumeClaim | None, _new: PersistentVolumeClaim | None) -> None:
        if failing:
            raise ValueError("a defect")
        heard.append(key)

    other: Claims = Store(project=ours, index="uid")
    other.subscribe(fails)
    other.subscribe(lambda key, old, new: told.append((key, label(old), label(new))))
    replace(other, 10, claim("a", 5), claim("b", 6))
    other.put(claim("a", 11))
    other.put(claim("b", 12, uid="second"))
    other.drop(claim("b", 13, uid="second"))
    assert len(told) == 6
    failing = False
    for key in other.shown_keys():
        other.replay(key)
    assert heard == ["ns/a"]
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("E")] == [lines[0]]
    assert lines[0].endswith('"Unexpected error, the object is told again at the next resync" object="ns/a"')
    assert lines[-1] == "ValueError: a defect"


def test_an_object_that_cannot_be_made_small_is_kept_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(obj: PersistentVolumeClaim) -> PersistentVolumeClaim | None:
        if obj.metadata.name == "a":
            raise ValueError("a defect")
        return ours(obj)

    store: Claims = Store(project=fails)
    replace(store, 10, claim("a", 5), claim("b", 6), claim("f", 7, foreign=True))
    store.put(claim("a", 11))
    store.remember(claim("a", 12))
    assert shown(store) == {"ns/a": "uid-a@12", "ns/b": "uid-b@6"}
    assert capsys.readouterr().err.count("Unexpected error") == 1


def test_handlers_see_the_change_in_place(store: Claims) -> None:
    seen: list[bool] = []
    store.subscribe(lambda key, old, new: seen.append(store.get(key) is new))
    store.put(claim("a", 11))
    store.drop(claim("b", 12))
    replace(store, 20, claim("a", 15), claim("z", 16))
    assert seen == [True] * 4


def test_resync_tells_every_object_again_unless_it_is_gone(store: Claims, told: Told) -> None:
    keys = store.shown_keys()
    store.drop(claim("b", 11))
    told.clear()
    for key in keys:
        store.replay(key)
    assert told == [("ns/a", "uid-a@5", "uid-a@5")]


# ---- a fresh list


def test_a_new_list_tells_the_difference_only(store: Claims, told: Told) -> None:
    kept = store.get("ns/a")
    replace(store, 20, claim("a", 5), claim("c", 15))
    assert sorted(told, key=lambda t: t[0]) == [("ns/b", "uid-b@6", None), ("ns/c", None, "uid-c@15")]
    assert store.get("ns/a") is kept, "the same version stays the same object"
    assert "ns/f" not in store


def test_an_object_deleted_and_made_again_while_away_is_told_as_both(store: Claims, told: Told) -> None:
    replace(store, 20, claim("a", 15, uid="second"), claim("b", 6))
    assert told == [("ns/a", "uid-a@5", None), ("ns/a", None, "second@15")]
    assert store.by_uid("uid-a") is None
    assert label(store.by_uid("second")) == "second@15"
    assert len(store._uids or ()) == 2, "the index forgets"


def test_the_list_of_a_restored_cluster_goes_back(store: Claims, told: Told) -> None:
    store.remember(claim("a", 12))
    replace(store, 3, claim("a", 2))
    assert shown(store) == {"ns/a": "uid-a@2"}
    store.put(claim("a", 4))
    assert shown(store) == {"ns/a": "uid-a@4"}


def test_a_restored_cluster_may_have_the_very_object_we_had(store: Claims) -> None:
    store.remember(claim("a", 12))
    replace(store, 7, claim("a", 5), claim("b", 6))
    assert label(store.by_uid("uid-a")) == "uid-a@5"


# ---- our own writes


def test_remembered_is_read_at_once_and_told_by_the_watch(store: Claims, told: Told) -> None:
    store.remember(claim("a", 12))
    store.remember(claim("new", 13))
    assert shown(store) == {"ns/a": "uid-a@12", "ns/b": "uid-b@6", "ns/new": "uid-new@13"}
    assert len(store) == 3
    assert "ns/new" in store
    assert label(store.by_uid("uid-a")) == "uid-a@12"
    assert store.by_uid("uid-new") is None, "by uid is found what the watch has shown"
    assert told == []
    store.put(claim("a", 12))
    assert told == [("ns/a", "uid-a@5", "uid-a@12")]


def test_an_event_older_than_what_we_remember_does_not_take_us_back(store: Claims, told: Told) -> None:
    store.remember(claim("a", 12))
    store.put(claim("a", 11))
    assert label(store.get("ns/a")) == "uid-a@12"
    store.put(claim("a", 13))
    assert label(store.get("ns/a")) == "uid-a@13"
    assert told == [("ns/a", "uid-a@5", "uid-a@11"), ("ns/a", "uid-a@11", "uid-a@13")]


@pytest.mark.parametrize("version", [4, 5, 9, 10], ids=lambda v: f"version {v}")
def test_what_the_watch_has_passed_is_not_remembered(store: Claims, version: int) -> None:
    store.remember(claim("a", version))
    store.remember(claim("gone", version))
    assert shown(store) == {"ns/a": "uid-a@5", "ns/b": "uid-b@6"}


def test_the_newest_of_several_writes_is_remembered(store: Claims) -> None:
    for version in (12, 15, 13):
        store.remember(claim("a", version))
    assert label(store.get("ns/a")) == "uid-a@15"


def test_a_deletion_seen_after_wins(store: Claims, told: Told) -> None:
    store.remember(claim("a", 12))
    store.drop(claim("a", 14))
    assert "ns/a" not in store
    store.remember(claim("a", 13))
    assert "ns/a" not in store, "an answer that comes after the deletion was seen is late"
    assert told == [("ns/a", "uid-a@5", None)]


def test_a_deletion_of_the_object_before_ours_leaves_ours(store: Claims, told: Told) -> None:
    store.remember(claim("a", 12, uid="second"))
    store.drop(claim("a", 11))
    assert label(store.get("ns/a")) == "second@12"
    assert store.by_uid("uid-a") is None
    assert label(store.get("ns/a")) == "second@12"
    store.put(claim("a", 12, uid="second"))
    assert told == [("ns/a", "uid-a@5", None), ("ns/a", None, "second@12")]


def test_a_list_ends_what_it_has_passed(store: Claims) -> None:
    store.remember(claim("a", 12))
    store.remember(claim("b", 30))
    replace(store, 20, claim("b", 6))
    assert shown(store) == {"ns/b": "uid-b@30"}


def test_a_bookmark_ends_what_the_watch_never_shows(store: Claims) -> None:
    store.remember(claim("elsewhere", 12))
    store.reached("11")
    assert "ns/elsewhere" in store
    store.reached("12")
    assert "ns/elsewhere" not in store
    assert store.by_uid("uid-elsewhere") is None


def test_before_the_first_list_all_is_remembered() -> None:
    store: Claims = Store()
    store.remember(claim("a", 12))
    replace(store, 10)
    assert shown(store) == {"ns/a": "uid-a@12"}


def test_what_is_projected_away_is_not_remembered(store: Claims) -> None:
    store.remember(claim("a", 12, foreign=True))
    assert label(store.get("ns/a")) == "uid-a@5"


def test_versions_that_are_no_numbers_are_never_newer(store: Claims) -> None:
    assert [version_number(v) for v in ("12", "", "1x", "²", "-3", "9" * 5000)] == [12, -1, -1, -1, -1, -1]
    store.remember(claim("a", "zz"))
    assert label(store.get("ns/a")) == "uid-a@5"
    store.put(claim("a", "zz"))
    store.drop(claim("a", "zz", uid="other"))
    assert label(store.get("ns/a")) == "uid-a@5", "nor does an event of such a version mean anything here"
    opaque: Claims = Store()
    opaque.put(claim("a", "x"))
    opaque.put(claim("a", "w"))
    opaque.drop(claim("a", "v", uid="other"))
    assert label(opaque.get("ns/a")) == "uid-a@w"
    opaque.put(claim("a", "u", uid="second"))
    assert label(opaque.get("ns/a")) == "second@u"


def test_no_index_without_asking_for_it() -> None:
    store: Claims = Store()
    with pytest.raises(LookupError):
        store.by_uid("uid-a")
