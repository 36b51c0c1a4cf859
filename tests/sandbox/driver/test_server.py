"""The driver over real gRPC: what a client gets, what the log says, and every fault that can be asked for."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio

from csi_provisioner.model import csi
from sandbox.driver import Config, Driver, Fault, Pool, serve
from tests.sandbox.driver.client import Client, connected, creation

EAST, WEST = {"zone": "east"}, {"zone": "west"}


@asynccontextmanager
async def served(path: Path, driver: Driver | None = None) -> AsyncIterator[tuple[Driver, Client]]:
    driver = driver or Driver()
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.serve, path)
        with connected(path) as client:
            yield driver, client
        nursery.cancel_scope.cancel()


def code_of(refused: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return str(refused.value.code().name)


async def test_answers_and_logs_calls(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as (driver, client):
        info = await client.call("GetPluginInfo", csi.GetPluginInfoRequest(), service="Identity")
        assert info.name == "sandbox.csi.example.com"
        volume = await client.create("pvc-1", parameters={"a": "b"})
        assert driver.state.volumes[volume.volume_id].name == "pvc-1"
        await client.call("DeleteVolume", csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert not driver.state.volumes
    assert [(call.rpc, call.code, call.running) for call in driver.calls] == [
        ("GetPluginInfo", "OK", False),
        ("CreateVolume", "OK", False),
        ("DeleteVolume", "OK", False),
    ]
    assert driver.calls[1].request.parameters == {"a": "b"}
    assert round(driver.calls[1].deadline or 0) == 20  # grpcio rounds it up a little
    assert not (tmp_path / "s").exists()


async def test_capabilities_are_those_of_the_config(tmp_path: Path) -> None:
    config = Config(plugin=("CONTROLLER_SERVICE", 77), controller=("CREATE_DELETE_VOLUME", 99))
    async with served(tmp_path / "s", Driver(config)) as (driver, client):
        plugin = await client.call("GetPluginCapabilities", csi.GetPluginCapabilitiesRequest(), service="Identity")
        controller = await client.call("ControllerGetCapabilities", csi.ControllerGetCapabilitiesRequest())
        assert [int(capability.service.type) for capability in plugin.capabilities] == [1, 77]
        assert [int(capability.rpc.type) for capability in controller.capabilities] == [1, 99]
        for rpc, request in (
            ("GetCapacity", csi.GetCapacityRequest()),
            ("ControllerPublishVolume", csi.ControllerPublishVolumeRequest()),
            ("ControllerFlyToTheMoon", csi.ProbeRequest()),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                await client.call(rpc, request)
            assert code_of(refused) == "UNIMPLEMENTED"
    assert [call.code for call in driver.made("GetCapacity")] == ["UNIMPLEMENTED"]


async def test_topology_is_told_when_declared(tmp_path: Path) -> None:
    plugin = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
    driver = Driver(Config(plugin=plugin, pools=(Pool(EAST), Pool(WEST)), node_segment=WEST))
    requirement = csi.TopologyRequirement(
        requisite=[csi.Topology(segments=EAST), csi.Topology(segments=WEST)], preferred=[csi.Topology(segments=WEST)]
    )
    async with served(tmp_path / "s", driver) as (_, client):
        node = await client.call("NodeGetInfo", csi.NodeGetInfoRequest(), service="Node")
        assert node.accessible_topology.segments == WEST
        volume = await client.create("a", accessibility_requirements=requirement)
        assert [topology.segments for topology in volume.accessible_topology] == [WEST]
        room = await client.call("GetCapacity", csi.GetCapacityRequest(accessible_topology=csi.Topology(segments=EAST)))
        assert room.available_capacity == Pool().size
        assert room.maximum_volume_size == Pool().largest_volume


async def test_a_clone_names_its_source(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as (_, client):
        source = await client.create("a")
        by_volume = csi.VolumeContentSource(volume=csi.VolumeContentSourceVolumeSource(volume_id=source.volume_id))
        clone = await client.create("b", volume_content_source=by_volume)
        assert clone.content_source == by_volume


async def refused_with(client: Client, name: str) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        await client.create(name)
    return f"{code_of(refused)}: {refused.value.details()}"


async def test_fault_refuses_so_many_times_by_name(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as (driver, client):
        driver.faults.add(Fault(match="^bad-", code="RESOURCE_EXHAUSTED", message="no room: größer", times=2))
        assert await refused_with(client, "bad-1") == "RESOURCE_EXHAUSTED: no room: größer"
        assert (await client.create("good")).volume_id
        assert await refused_with(client, "bad-1") == "RESOURCE_EXHAUSTED: no room: größer"
        assert (await client.create("bad-1")).volume_id


async def test_fault_by_claim_and_volume_created_anyway(tmp_path: Path) -> None:
    claim = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "shop"}
    driver = Driver(Config(faults=(Fault(match="^shop/data$", code="DEADLINE_EXCEEDED", created=True),)))
    async with served(tmp_path / "s", driver) as (_, client):
        with pytest.raises(grpc.RpcError):
            await client.create("pvc-1", parameters=claim)
        assert driver.state.volume_named("pvc-1")
        volume_id = driver.state.volume_named("pvc-1").id  # type: ignore[union-attr]
        driver.faults.clear()
        driver.faults.add(Fault("DeleteVolume", match="^shop/data$", code="INTERNAL", times=1))
        with pytest.raises(grpc.RpcError):
            await client.call("DeleteVolume", csi.DeleteVolumeRequest(volume_id=volume_id))
        await client.call("DeleteVolume", csi.DeleteVolumeRequest(volume_id=volume_id))


@pytest.mark.parametrize(
    ("fault", "holds"),
    [
        (Fault(capacity_delta=-5), lambda volume: volume.capacity_bytes == (1 << 30) - 5),
        (Fault(volume_id=""), lambda volume: volume.volume_id == ""),
        (Fault(volume_context={"k": "v"}), lambda volume: volume.volume_context == {"k": "v"}),
        (Fault(accessible_topology=(EAST,)), lambda volume: volume.accessible_topology[0].segments == EAST),
        (Fault(drop_content_source=True), lambda volume: volume.content_source is None),
        (Fault(no_volume=True), lambda volume: volume is None),
    ],
    ids=["smaller", "no id", "context", "topology", "no source", "no volume"],
)
async def test_fault_changes_the_answer(tmp_path: Path, fault: Fault, holds: Callable[[Any], bool]) -> None:
    async with served(tmp_path / "s") as (driver, client):
        source = await client.create("source")
        driver.faults.add(fault)
        by_volume = csi.VolumeContentSource(volume=csi.VolumeContentSourceVolumeSource(volume_id=source.volume_id))
        assert holds(await client.create("a", volume_content_source=by_volume))


async def test_not_ready(tmp_path: Path) -> None:
    async with served(tmp_path / "s", Driver(Config(faults=(Fault("Probe", not_ready=True, times=1),)))) as (_, client):
        answers = [await client.call("Probe", csi.ProbeRequest(), service="Identity") for _ in range(2)]
    assert [answer.ready for answer in answers] == [False, True]


async def test_gate_holds_calls_side_by_side(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as (driver, client):
        driver.faults.add(Fault(gate="door"))
        waiting = [client.start("CreateVolume", creation(f"v{number}")) for number in range(100)]
        await driver.wait_until(lambda: len(driver.made("CreateVolume", running=True)) == 100)
        driver.faults.gate("door").set()
        answers = await trio.to_thread.run_sync(lambda: [call.result(20) for call in waiting])
        assert len({answer.volume.volume_id for answer in answers}) == 100


@pytest.mark.parametrize("gives_up", [None, 0.2], ids=["cancelled", "deadline"])
async def test_a_call_that_is_given_up_reaches_the_driver(tmp_path: Path, gives_up: float | None) -> None:
    async with served(tmp_path / "s") as (driver, client):
        driver.faults.add(Fault(hang=True))
        call = client.start("CreateVolume", creation("a"), timeout=gives_up)
        await driver.wait_until(lambda: bool(driver.made("CreateVolume", running=True)))
        if gives_up is None:
            call.cancel()
        await driver.wait_until(lambda: bool(driver.made("CreateVolume", running=False)))
        assert driver.calls[0].cancelled


async def test_broken_connections_end_calls_and_clients_come_back(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as (driver, client):
        driver.faults.add(Fault(hang=True, times=1))
        call = client.start("CreateVolume", creation("a"))
        await driver.wait_until(lambda: bool(driver.made("CreateVolume", running=True)))
        driver.break_connections()
        with pytest.raises(grpc.RpcError) as refused:
            await trio.to_thread.run_sync(call.result, 20)
        assert code_of(refused) == "UNAVAILABLE"
        assert driver.calls[0].cancelled
        assert (await client.create("a")).volume_id


async def test_restarts_on_the_same_socket_with_its_volumes(tmp_path: Path) -> None:
    driver = Driver()
    async with served(tmp_path / "s", driver) as (_, client):
        first = await client.create("a")
    # a client of its own: when another one notices that its connection is gone is not the driver's affair
    async with served(tmp_path / "s", driver) as (_, client):
        assert (await client.create("a")).volume_id == first.volume_id


async def test_serve_gives_the_driver_it_made(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        driver = await nursery.start(serve, tmp_path / "s", Config(name="other.example.com"))
        assert driver.config.name == "other.example.com"
        nursery.cancel_scope.cancel()
