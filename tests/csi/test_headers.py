"""Header blocks: those of calls are the same bytes each time, and those of answers mean what they mean to any peer."""

import random

import pytest
from h2.exceptions import ProtocolError
from hpack import Decoder, Encoder
from hyperframe.frame import SettingsFrame

from csi_provisioner.csi.blocks import Blocks, Reader
from csi_provisioner.csi.engine import Engine
from csi_provisioner.csi.stream import headers

CREATE = "/csi.v1.Controller/CreateVolume"


def blocks(encoder: Blocks, *calls: tuple[str, float]) -> list[bytes]:
    return [encoder.encode(headers(method, timeout)) for method, timeout in calls]


def test_a_block_says_the_same_whatever_came_before() -> None:
    calls = [(CREATE, 10.0), ("/csi.v1.Identity/Probe", 10.0), (CREATE, 9.5), (CREATE, 10.0)]
    made = blocks(Blocks(), *calls)
    decoder = Decoder()
    decoded = [decoder.decode(block, raw=True) for block in made]
    assert [list(map(tuple, fields)) for fields in decoded] == [headers(*call) for call in calls]
    assert made[0] == made[3]
    assert Decoder().decode(made[3]) == Decoder().decode(made[0])


@pytest.mark.parametrize("size", [0, 100, 4096, 65536])
def test_a_peer_may_want_a_table_of_another_size(size: int) -> None:
    http2 = Engine()
    http2.receive_data(SettingsFrame(0, {SettingsFrame.HEADER_TABLE_SIZE: size}).serialize())
    http2.receive_data(SettingsFrame(0, {SettingsFrame.ENABLE_PUSH: 0}).serialize())  # which says nothing of it
    decoder = Decoder()
    decoder.max_allowed_table_size = size
    for block in blocks(http2.encoder, (CREATE, 10.0), (CREATE, 10.0)):
        assert dict(decoder.decode(block))[":path"] == CREATE


@pytest.mark.parametrize("seed", range(8))
def test_a_block_that_came_before_means_what_any_decoder_says(seed: int) -> None:
    chance = random.Random(seed)
    encoder, ours, plain = Encoder(), Reader(100_000), Decoder()
    for _ in range(150):
        if chance.random() < 0.05:
            encoder.header_table_size = chance.choice([0, 60, 200, 4096])
        fields = [(f"name-{chance.randrange(3)}", f"value-{chance.randrange(4)}") for _ in range(chance.randrange(4))]
        block = encoder.encode(fields)
        assert ours.read(block).fields == list(plain.decode(block))


def test_what_a_smaller_table_has_forgotten_is_known_no_more() -> None:
    reader = Reader(100_000)
    for field in (b"\x40\x01a\x01b", b"\x40\x01c\x01d"):
        reader.read(field)
    for _ in range(2):
        assert reader.read(b"\xbf").fields == [("a", "b")]
    reader.read(b"\x3f\x09")  # 40 bytes: room for one field
    with pytest.raises(ProtocolError):
        reader.read(b"\xbf")
