"""The channel and the driver against grpcio in a process of its own: another gRPC implementation, a real restart."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.driver import Driver
from csi_provisioner.csi.errors import CallError
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.settings import CsiSettings
from tests.csi.counted import Counted
from tests.foreign_process import ForeignDriver, foreign_driver


@pytest.fixture
async def foreign(tmp_path: Path) -> AsyncIterator[ForeignDriver]:
    async with foreign_driver(tmp_path) as driver:
        yield driver


class Lost:
    """Counts connections that were lost, and lets a test wait for the first one."""

    def __init__(self) -> None:
        self.count = 0
        self._first = trio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._first.set()

    async def wait(self) -> None:
        await self._first.wait()


@asynccontextmanager
async def client(foreign: ForeignDriver, lost: Lost | None = None, limit: float = 30.0) -> AsyncIterator[Driver]:
    path = str(foreign.socket)
    async with Channel(path, on_lost=lost or Lost(), metrics=Counted()) as channel:
        yield Driver(channel, CsiSettings(address=path, timeout=limit))


def volume(name: str) -> csi.CreateVolumeRequest:
    return csi.CreateVolumeRequest(name=name, capacity_range=csi.CapacityRange(required_bytes=1 << 30))


async def seen(foreign: ForeignDriver, phase: str, method: str = "CreateVolume") -> dict[str, object]:
    """The driver's log is a file of another process, so it has to be asked."""
    with trio.fail_after(30):
        while not foreign.calls(method, phase):  # noqa: ASYNC110
            await trio.sleep(0.01)
    return foreign.calls(method, phase)[0]


async def test_every_call(foreign: ForeignDriver) -> None:
    foreign.configure(
        name="foreign.example.com",
        plugin=["CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS"],
        controller=["CREATE_DELETE_VOLUME", "GET_CAPACITY"],
        extra=[77],
        topology={"zone": "a"},
        capacity=[{"topology": {"zone": "a"}, "available": 7, "maximum": 5}],
    )
    async with client(foreign) as driver:
        await driver.connect()
        await driver.probe_until_ready()
        assert await driver.identify() == "foreign.example.com"
        plugin, controller = await driver.read_capabilities()
        assert plugin == {"CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS"}
        assert controller == {"CREATE_DELETE_VOLUME", "GET_CAPACITY"}
        node = await driver.node_get_info()
        assert node.accessible_topology == csi.Topology(segments={"zone": "a"})
        capacity = await driver.get_capacity(csi.GetCapacityRequest(accessible_topology=node.accessible_topology))
        assert (capacity.available_capacity, capacity.maximum_volume_size) == (7, 5)
        created = (await driver.create_volume(volume("v"))).volume
        assert created is not None
        assert created.volume_id in foreign.volumes()
        assert created.accessible_topology == [csi.Topology(segments={"zone": "a"})]
        await driver.delete_volume(csi.DeleteVolumeRequest(volume_id=created.volume_id))
        assert foreign.volumes() == {}


async def test_a_cancelled_call_ends_at_once_and_the_driver_sees_it(foreign: ForeignDriver) -> None:
    foreign.configure(rules=[{"method": "CreateVolume", "delay": 3600}])
    async with client(foreign) as driver, trio.open_nursery() as nursery:
        nursery.start_soon(driver.create_volume, volume("v"))
        await seen(foreign, "begin")
        nursery.cancel_scope.cancel()
    assert (await seen(foreign, "end"))["code"] == "CANCELLED"


async def test_the_timeout_reaches_the_driver(foreign: ForeignDriver) -> None:
    async with client(foreign, limit=1234.0) as driver:
        await driver.create_volume(volume("v"))
    assert 1200 < foreign.calls("CreateVolume")[0]["timeout"] <= 1235


async def test_a_shorter_scope_of_the_caller_reaches_the_driver_too(foreign: ForeignDriver) -> None:
    async with client(foreign, limit=1234.0) as driver:
        with trio.fail_after(500):
            await driver.create_volume(volume("v"))
    assert foreign.calls("CreateVolume")[0]["timeout"] <= 501


async def test_the_driver_may_notice_the_deadline_first(foreign: ForeignDriver) -> None:
    foreign.configure(rules=[{"method": "CreateVolume", "delay": 3600}])
    async with client(foreign, limit=0.1) as driver:
        with pytest.raises(CallError) as caught:
            await driver.create_volume(volume("v"))
    assert caught.value.code == Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"])
async def test_a_status_of_the_driver(foreign: ForeignDriver, code: str) -> None:
    foreign.configure(rules=[{"error": code, "message": "größer als 100 %\nvorhanden"}])
    async with client(foreign) as driver:
        with pytest.raises(CallError) as caught:
            await driver.create_volume(volume("v"))
    assert caught.value.code == Code[code]
    assert caught.value.message == "größer als 100 %\nvorhanden"


async def test_a_hundred_calls_side_by_side(foreign: ForeignDriver) -> None:
    foreign.configure(rules=[{"method": "CreateVolume", "together": 100}])
    ids = []

    async def create(driver: Driver, name: str) -> None:
        made = (await driver.create_volume(volume(name))).volume
        assert made is not None
        ids.append(made.volume_id)

    async with client(foreign, limit=60.0) as driver, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(create, driver, f"v{number}")
    assert len(set(ids)) == 100


async def test_a_killed_driver_is_noticed_while_idle_and_found_again(foreign: ForeignDriver) -> None:
    lost = Lost()
    async with client(foreign, lost) as driver:
        first = await driver.create_volume(volume("v"))
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lost.wait)
                await foreign.kill()
        assert lost.count == 1
        with pytest.raises(CallError) as caught:
            await driver.create_volume(volume("v"))
        assert caught.value.code == Code.UNAVAILABLE
        await foreign.start()
        assert await driver.create_volume(volume("v")) == first
        assert lost.count == 1


async def test_a_driver_killed_in_the_middle_of_a_call(foreign: ForeignDriver) -> None:
    foreign.configure(rules=[{"method": "CreateVolume", "exit": True}])
    lost = Lost()
    async with client(foreign, lost) as driver:
        with pytest.raises(CallError) as caught:
            await driver.create_volume(volume("v"))
    assert caught.value.code == Code.UNAVAILABLE
    assert lost.count == 1


async def test_a_driver_that_stops_politely_counts_as_lost(foreign: ForeignDriver) -> None:
    lost = Lost()
    async with client(foreign, lost) as driver:
        await driver.connect()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lost.wait)
                await foreign.kill(signal.SIGTERM)
    assert lost.count == 1


async def test_a_driver_that_stops_with_grace_ends_what_runs_and_the_next_takes_what_is_new(
    foreign: ForeignDriver, tmp_path: Path
) -> None:
    lost, made = Lost(), []

    async def create(driver: Driver, name: str) -> None:
        made.append((await driver.create_volume(volume(name))).volume)

    foreign.configure(grace=30, rules=[{"method": "CreateVolume", "match": "slow", "delay": 1.2}])
    async with client(foreign, lost) as driver, trio.open_nursery() as nursery:
        nursery.start_soon(create, driver, "slow")
        await seen(foreign, "begin")
        foreign.signal(signal.SIGTERM)
        await lost.wait()
        following = ForeignDriver(tmp_path)
        await following.start()
        await create(driver, "new")
        await following.kill()
    assert lost.count == 2
    assert len(foreign.calls("CreateVolume")) == len(foreign.volumes()) == 2


async def test_connections_that_end_with_their_age_end_no_call(tmp_path: Path) -> None:
    lost = Lost()
    async with (
        foreign_driver(tmp_path, max_age=200, rules=[{"delay": 0.05}]) as foreign,
        client(foreign, lost) as driver,
    ):
        with trio.fail_after(30):
            while lost.count < 3:
                async with trio.open_nursery() as nursery:
                    for number in range(10):
                        nursery.start_soon(driver.create_volume, volume(f"v{lost.count}-{number}"))
        asked = [call["request"]["name"] for call in foreign.calls("CreateVolume")]
    assert {call["code"] for call in foreign.calls("CreateVolume", "end")} == {"OK"}
    assert len(foreign.volumes()) == len(set(asked))


async def test_a_call_the_driver_does_not_have(foreign: ForeignDriver) -> None:
    async with Channel(str(foreign.socket), on_lost=Lost(), metrics=Counted()) as channel:
        with pytest.raises(CallError) as caught:
            await channel.call(
                "/csi.v1.Controller/ControllerModifyVolume",
                csi.ControllerModifyVolumeRequest(),
                csi.ControllerModifyVolumeResponse,
                timeout=30.0,
            )
    assert caught.value.code == Code.UNIMPLEMENTED
