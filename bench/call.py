"""What a gRPC call costs: `python -m bench call`, against a peer of canned answers in a process of its own.

Processor time of our own thread, the least of many rounds. The peer answers as a driver in Go does, with an
acknowledgement of the request and a ping of its own before each answer, or without them. `by itself` is HTTP/2 alone,
from memory: a request to bytes, and an answer from them.
"""

import multiprocessing
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio
from hpack import Encoder

from csi_provisioner.csi import channel
from csi_provisioner.csi.answer import framed
from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.stream import headers
from csi_provisioner.csi.wire import encode
from csi_provisioner.model import csi

ROUNDS, CALLS, AT_A_TIME = 40, 100, 10
METHOD = "/csi.v1.Controller/CreateVolume"
HEAD = struct.Struct(">HBBBL")
SETTINGS = HEAD.pack(0, 0, 4, 0, 0)
HUGE_WINDOW = HEAD.pack(0, 4, 8, 0, 0) + b"\x3f\0\0\0"
PINGS = HEAD.pack(0, 4, 8, 0, 0) + b"\0\0\1\0" + HEAD.pack(0, 8, 6, 0, 0) + b"12345678"
VOLUME = csi.CreateVolumeResponse(volume=csi.Volume(volume_id="id-pvc-" + "0" * 36, capacity_bytes=1 << 30))
REQUEST = csi.CreateVolumeRequest(
    name="pvc-" + "0" * 36,
    capacity_range=csi.CapacityRange(required_bytes=1 << 30),
    volume_capabilities=[
        csi.VolumeCapability(
            mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"),
            access_mode=csi.VolumeCapabilityAccessMode(mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER),
        )
    ],
    parameters={"csi.storage.k8s.io/pvc/name": "data-0", "csi.storage.k8s.io/pvc/namespace": "team"},
)


class Nobody:
    def csi_call(self, *_: object) -> None: ...


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, pings in (("a call", False), ("a call, and the driver pings", True)):
            path = Path(folder) / str(pings)
            peer = multiprocessing.get_context("fork").Process(target=_peer, args=(path, pings), daemon=True)
            peer.start()
            for at_a_time in (1, AT_A_TIME):
                print(f"{name}, {at_a_time} at a time: {trio.run(_calls, path, at_a_time) * 1000:.3f} ms of CPU")
            peer.kill()
    print(f"HTTP/2 by itself: {_alone() * 1000:.3f} ms of CPU")


async def _calls(path: Path, at_a_time: int) -> float:
    async def one() -> None:
        for _ in range(CALLS // at_a_time):
            await driver.call(METHOD, REQUEST, csi.CreateVolumeResponse, timeout=10.0)

    rounds = []
    async with Channel(str(path), on_lost=lambda: None, metrics=Nobody()) as driver:
        await driver.wait_connected()
        for _ in range(ROUNDS):
            began = time.thread_time()
            async with trio.open_nursery() as nursery:
                for _ in range(at_a_time):
                    nursery.start_soon(one)
            rounds.append((time.thread_time() - began) / CALLS)
    return min(rounds)


def _alone() -> float:
    answer, message, rounds = _answers(), framed(encode(REQUEST)), []
    length = len(framed(encode(VOLUME)))
    http2 = channel.Http2()
    http2.initiate_connection()
    http2.receive_data(SETTINGS + HUGE_WINDOW)
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(CALLS):
            number = http2.ask(headers(METHOD, 10.0), message)
            http2.data_to_send()
            http2.receive_data(answer(number))
            http2.acknowledge_received_data(length, number)
        rounds.append((time.thread_time() - began) / CALLS)
    return min(rounds)


def _answers() -> Callable[[int], bytes]:
    encoder, body = Encoder(), framed(encode(VOLUME))

    def answer(number: int) -> bytes:
        head = encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
        trailers = encoder.encode([("grpc-status", "0"), ("grpc-message", "")])
        frames = ((1, 4, head), (0, 0, body), (1, 5, trailers))
        return b"".join(HEAD.pack(0, len(data), type_, flags, number) + data for type_, flags, data in frames)

    return answer


def _peer(path: Path, pings: bool) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as data:
            data.read(24)
            connection.sendall(SETTINGS + HUGE_WINDOW)
            answer = _answers()
            while head := data.read(HEAD.size):
                high, low, type_, flags, number = HEAD.unpack(head)
                data.read(high << 8 | low)
                if type_ == 0 and flags & 1:
                    if pings:
                        connection.sendall(PINGS)
                    connection.sendall(answer(number))
