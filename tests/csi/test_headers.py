"""Header blocks: those of calls are the same bytes each time, and those of answers mean what they mean to any peer."""

import random

import pytest
from h2.exceptions import TooManyStreamsError
from h2.settings import SettingCodes
from hpack import Decoder, Encoder, InvalidTableIndex

from csi_provisioner.csi.http2 import HTTP2, Http2
from csi_provisioner.csi.stream import headers

CREATE = "/csi.v1.Controller/CreateVolume"


def blocks(http2: Http2, *calls: tuple[str, float]) -> list[bytes]:
    return [http2.encoder.encode(headers(method, timeout)) for method, timeout in calls]


def test_a_block_says_the_same_whatever_came_before() -> None:
    calls = [(CREATE, 10.0), ("/csi.v1.Identity/Probe", 10.0), (CREATE, 9.5), (CREATE, 10.0)]
    made = blocks(Http2(HTTP2), *calls)
    decoder = Decoder()
    decoded = [decoder.decode(block, raw=True) for block in made]
    assert [list(map(tuple, fields)) for fields in decoded] == [headers(*call) for call in calls]
    assert made[0] == made[3]
    assert Decoder().decode(made[3]) == Decoder().decode(made[0])


@pytest.mark.parametrize("size", [0, 100, 4096, 65536])
def test_a_peer_may_want_a_table_of_another_size(size: int) -> None:
    http2 = Http2(HTTP2)
    http2.remote_settings.update({SettingCodes.HEADER_TABLE_SIZE: size})
    http2.encoder.header_table_size = size
    decoder = Decoder()
    decoder.max_allowed_table_size = size
    for block in blocks(http2, (CREATE, 10.0), (CREATE, 10.0)):
        assert dict(decoder.decode(block))[":path"] == CREATE


def test_streams_are_counted_only_where_there_may_be_too_many() -> None:
    http2 = Http2(HTTP2)
    http2.initiate_connection()
    for number in range(1, 601, 2):
        http2.send_headers(number, headers(CREATE, 10.0))
        http2.reset_stream(number)
        assert len(http2.streams) <= 256, "h2 forgets those that are over"
    http2.remote_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    http2.remote_settings.acknowledge()
    http2.send_headers(601, headers(CREATE, 10.0))
    assert http2.open_outbound_streams == 1


@pytest.mark.parametrize("size", [0, 5, 4000])
def test_a_request_in_one_piece_has_the_bytes_that_h2_makes(size: int) -> None:
    ours, theirs = Http2(HTTP2), Http2(HTTP2)
    for http2 in (ours, theirs):
        http2.initiate_connection()
    for number in (1, 3):
        assert ours.ask(headers(CREATE, 10.0), bytes(size)) == number
        theirs.send_headers(number, headers(CREATE, 10.0))
        theirs.send_data(number, bytes(size), end_stream=True)
        assert ours.local_flow_control_window(number) == theirs.local_flow_control_window(number)
        assert ours.streams[number].state_machine.state == theirs.streams[number].state_machine.state
    assert ours.data_to_send() == theirs.data_to_send()


def test_no_more_is_asked_at_a_time_than_the_peer_wants() -> None:
    http2 = Http2(HTTP2)
    http2.initiate_connection()
    http2.remote_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    http2.remote_settings.acknowledge()
    http2.ask(headers(CREATE, 10.0), b"")
    with pytest.raises(TooManyStreamsError):
        http2.ask(headers(CREATE, 10.0), b"")
    assert list(http2.streams) == [1]


@pytest.mark.parametrize("seed", range(8))
def test_a_block_that_came_before_means_what_any_decoder_says(seed: int) -> None:
    chance = random.Random(seed)
    encoder, ours, plain = Encoder(), Http2(HTTP2).decoder, Decoder()
    for _ in range(150):
        if chance.random() < 0.05:
            encoder.header_table_size = chance.choice([0, 60, 200, 4096])
        fields = [(f"name-{chance.randrange(3)}", f"value-{chance.randrange(4)}") for _ in range(chance.randrange(4))]
        block = encoder.encode(fields)
        assert list(ours.decode(block, raw=True)) == list(plain.decode(block, raw=True))


def test_what_a_smaller_table_has_forgotten_is_known_no_more() -> None:
    decoder = Http2(HTTP2).decoder
    for field in (b"\x40\x01a\x01b", b"\x40\x01c\x01d"):
        decoder.decode(field, raw=True)
    for _ in range(2):
        assert list(map(tuple, decoder.decode(b"\xbf", raw=True))) == [(b"a", b"b")]
    decoder.decode(b"\x3f\x09", raw=True)  # 40 bytes: room for one field
    with pytest.raises(InvalidTableIndex):
        decoder.decode(b"\xbf", raw=True)
