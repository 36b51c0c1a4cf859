"""The header block of a call: the same bytes each time, and the same fields for every peer."""

import pytest
from h2.settings import SettingCodes
from hpack import Decoder

from csi_provisioner.csi.stream import HTTP2, Http2, headers

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
