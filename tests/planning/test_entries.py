"""Entries of the volume journal and how they stand in an annotation: design.md 6."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.planning import entries
from csi_provisioner.planning.entries import ClaimName, Entry

DRIVER = "hostpath.csi.example.com"
RECORDED = (
    b'{"v":1,"driver":"hostpath.csi.example.com","claim":{"namespace":"shop","name":"data","uid":"1-2"},'
    b'"storage_class":"fast","reclaim_policy":"Delete","request":"CgNwdmM=","when":1798761600}'
)


def entry(**fields: object) -> Entry:
    return msgspec.structs.replace(msgspec.json.decode(RECORDED, type=Entry), **fields)


def test_an_entry_of_the_first_version_is_understood() -> None:
    """A recorded one: later versions have to read it."""
    assert entries.understood(RECORDED, DRIVER) == Entry(
        v=1,
        driver=DRIVER,
        claim=ClaimName("shop", "data", "1-2"),
        storage_class="fast",
        reclaim_policy="Delete",
        request=b"\n\x03pvc",
        when=1798761600,
    )
    assert entries.encode(entry()) == RECORDED


@pytest.mark.parametrize(
    "text",
    [
        RECORDED.replace(b'"v":1', b'"v":2'),
        RECORDED.replace(b"hostpath", b"another"),
        RECORDED.replace(b'"when":1798761600', b'"when":"soon"'),
        b'{"v":1}',
        b"[]",
        b"7",
    ],
    ids=["newer version", "other driver", "wrong type", "fields missing", "list", "number"],
)
def test_what_this_version_did_not_write_is_not_understood(text: bytes) -> None:
    assert entries.understood(text, DRIVER) is None


@given(st.dictionaries(st.text(max_size=300), st.integers() | st.text(max_size=200), max_size=12))
def test_texts_come_back_byte_for_byte(values: dict[str, object]) -> None:
    texts = {name: msgspec.json.encode(value) for name, value in values.items()}
    assert entries.unpack(entries.pack(texts)) == texts


def test_a_few_entries_can_be_read_with_kubectl() -> None:
    packed = entries.pack({"pvc-1": RECORDED})
    assert packed.startswith('{"pvc-1":{"v":1,')


def test_many_entries_are_small() -> None:
    """A hundred of 1 KiB: the pause after a write is as long as the write is large."""
    texts = {f"pvc-{n}": entries.encode(entry(request=bytes(700), when=n)) for n in range(100)}
    packed = entries.pack(texts)
    assert len(packed) < 10 * 1024
    assert entries.fits(texts, packed)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "{",
        "[]",
        '{"a":}',
        "////",
        "eJwDAAAAAAE",
        entries.pack({"a": b'"' + bytes(5000) + b'"'})[:-8],
        pytest.param('{"a":' + "[" * 30_000 + "]" * 30_000 + "}", id="brackets"),
    ],
)
def test_what_is_no_journal_is_unreadable(value: str) -> None:
    with pytest.raises(entries.UnreadableError):
        entries.unpack(value)


def test_a_small_annotation_never_becomes_large_memory() -> None:
    bomb = entries.pack({"a": b'"' + b" " * 3 * entries.MOST_JSON + b'"'})
    assert len(bomb) < 32 * 1024
    with pytest.raises(entries.UnreadableError):
        entries.unpack(bomb)
