"""HTTP/2 as this client of one driver speaks it, by h2 alone: what `engine` is held to, and what can take its place; a
part of `channel`."""

from typing import Any

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.events import ConnectionTerminated
from h2.exceptions import NoAvailableStreamIDError, ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream

from csi_provisioner.csi.blocks import Blocks, Fields

HTTP2 = H2Configuration(
    client_side=True,
    # Never fails, whatever bytes a driver puts into a message; `answer` makes text of them.
    header_encoding="latin-1",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# A status comes in headers, and with it whatever a driver has to say. More than they may hold would end the connection,
# and all calls on it. The most that h2 takes in one piece: 64 frames of 16 KiB.
OURS = {
    SettingCodes.MAX_CONCURRENT_STREAMS: 100,
    SettingCodes.MAX_HEADER_LIST_SIZE: 1024 * 1024,
    SettingCodes.ENABLE_PUSH: 0,
}

# The largest number that HTTP/2 has for a stream: a GOAWAY with it ends none.
ALL_STREAMS = 2**31 - 1
GOODBYE = "it has ended the connection politely"


class Http2(H2Connection):
    # The driver takes no more calls here: none may be begun, also not by one that waited for its turn.
    leaving = False

    def __init__(self) -> None:
        super().__init__(HTTP2)
        self.encoder = Blocks()
        self.local_settings = Settings(client=True, initial_values=OURS)
        self.decoder.max_header_list_size = OURS[SettingCodes.MAX_HEADER_LIST_SIZE]

    def fits(self, size: int) -> bool:
        """Whether the peer takes so many bytes of a new stream in one frame now."""
        window = min(self.outbound_flow_control_window, self.remote_settings.initial_window_size)
        return size <= min(window, self.max_outbound_frame_size)

    def get_next_available_stream_id(self) -> int:
        if self.leaving:
            raise NoAvailableStreamIDError(GOODBYE)
        return super().get_next_available_stream_id()

    def ask(self, fields: Fields, message: bytes) -> int:
        """A whole request that fits. Gives its number."""
        number = self.get_next_available_stream_id()
        self.send_headers(number, fields)
        self.send_data(number, message, end_stream=True)
        return number

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        if stream_id % 2 == 0:  # h2 takes requests from a server
            raise ProtocolError("only a client opens streams")
        return super()._begin_new_stream(stream_id, allowed_ids)

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """For h2 whatever follows is a breach; but a driver still answers what it has taken (RFC 9113, 6.8)."""
        event = ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        return [], [event]
