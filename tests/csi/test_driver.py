"""Start-up and calls of the driver: which failure is waited out, which ends the process (process.md 3, 4, 9.3)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import betterproto2
import pytest
import trio
import trio.testing

from csi_provisioner.csi.channel import Channel
from csi_provisioner.csi.driver import Driver
from csi_provisioner.fatal import Fatal
from csi_provisioner.logs import configure
from csi_provisioner.model import csi
from csi_provisioner.model.codes import Code
from csi_provisioner.settings import CsiSettings, LogSettings
from tests import protobuf
from tests.csi.counted import Counted
from tests.csi.peer import Call, Peer, answer_nothing, listening, peer

READY = csi.ProbeResponse(ready=True)
SILENT = csi.ProbeResponse()
NOT_READY = csi.ProbeResponse(ready=False)


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


@asynccontextmanager
async def driven(folder: Path, answer: Callable[[Call], Awaitable[None]]) -> AsyncIterator[tuple[Peer, Driver]]:
    async with peer(folder / "csi.sock", answer) as other:
        settings = CsiSettings(address=str(other.path))
        async with Channel(settings.address, on_lost=lambda: None, metrics=Counted()) as channel:
            yield other, Driver(channel, settings)


def always(message: betterproto2.Message) -> Callable[[Call], Awaitable[None]]:
    return lambda call: call.answer(bytes(message))


class Script:
    """Answers to probes in turn: a message or a status, after so many seconds. Keeps when each probe came."""

    def __init__(self, *steps: tuple[float, csi.ProbeResponse | Code]) -> None:
        self._steps = iter(steps)
        self.times: list[float] = []

    async def __call__(self, call: Call) -> None:
        self.times.append(round(trio.current_time(), 3))
        pause, reply = next(self._steps)
        await trio.sleep(pause)
        await (call.refuse(reply) if isinstance(reply, Code) else call.answer(bytes(reply)))


LATE = 3600.0  # long after the limit of 10 s
PROBES = {
    "ready": ([(0, READY)], [0]),
    "silence is readiness": ([(0, SILENT)], [0]),
    "asked every second": ([(0, NOT_READY)] * 3 + [(0, SILENT)], [0, 1, 2, 3]),
    "a slow probe is followed at once": ([(2.5, NOT_READY), (0, NOT_READY), (0, READY)], [0, 2.5, 3]),
    "a short one waits for the tick": ([(0.7, NOT_READY), (0.7, NOT_READY), (0, READY)], [0, 1, 2]),
    "the driver's own timeout": ([(0, Code.DEADLINE_EXCEEDED), (0, READY)], [0, 1]),
    "our timeout": ([(LATE, READY), (0, READY)], [0, 10]),
}


@pytest.mark.parametrize(("steps", "times"), PROBES.values(), ids=PROBES)
async def test_a_driver_is_probed_every_second_until_it_is_ready(
    tmp_path: Path, steps: list[tuple[float, csi.ProbeResponse | Code]], times: list[float]
) -> None:
    """process.md 4.3."""
    script = Script(*steps)
    async with driven(tmp_path, script) as (_, driver):
        await driver.connect()
        await driver.probe_until_ready()
    assert [time - script.times[0] for time in script.times] == pytest.approx(times)


@pytest.mark.parametrize("code", set(Code) - {Code.OK, Code.DEADLINE_EXCEEDED})
async def test_any_status_but_a_timeout_ends_the_start(tmp_path: Path, code: Code) -> None:
    """process.md 4.3."""
    script = Script((0, NOT_READY), (0, code))
    async with driven(tmp_path, script) as (_, driver):
        with pytest.raises(Fatal) as caught:
            await driver.probe_until_ready()
    assert caught.value.code == 1
    assert len(script.times) == 2


async def test_no_driver_in_time_ends_the_start(tmp_path: Path) -> None:
    """process.md 4.2."""
    settings = CsiSettings(address=str(tmp_path / "none.sock"))
    async with Channel(settings.address, on_lost=lambda: None, metrics=Counted()) as channel:
        started = trio.current_time()
        with pytest.raises(Fatal, match=r"deadline exceeded.*No such file.*--csi-address") as caught:
            await Driver(channel, settings).connect(limit=30)
        assert trio.current_time() - started == pytest.approx(30)
    assert caught.value.code == 1


async def test_a_driver_that_says_nothing_ends_the_start(tmp_path: Path) -> None:
    """process.md 4.2."""
    settings = CsiSettings(address=str(tmp_path / "mute.sock"))
    with listening(tmp_path / "mute.sock"):
        async with Channel(settings.address, on_lost=lambda: None, metrics=Counted()) as channel:
            with pytest.raises(Fatal, match="it takes connections but says nothing"):
                await Driver(channel, settings).connect(limit=30)


async def test_identify(tmp_path: Path) -> None:
    async with driven(tmp_path, always(csi.GetPluginInfoResponse(name="a.b"))) as (_, driver):
        assert await driver.identify() == "a.b"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (always(csi.GetPluginInfoResponse(name="")), "name is empty"),
        (lambda call: call.refuse(Code.UNAVAILABLE), "cannot get the CSI driver's name"),
        (answer_nothing, "no answer within 10 s"),
    ],
    ids=["empty", "refused", "late"],
)
async def test_identify_fails(tmp_path: Path, answer: Callable[[Call], Awaitable[None]], text: str) -> None:
    async with driven(tmp_path, answer) as (_, driver):
        with pytest.raises(Fatal, match=text) as caught:
            await driver.identify()
    assert caught.value.code == 255


async def test_capabilities_of_a_newer_driver(tmp_path: Path) -> None:
    plugin = protobuf.message("GetPluginCapabilitiesResponse")(
        capabilities=[
            {"service": {"type": "CONTROLLER_SERVICE"}},
            {},
            {"service": {}},
            {"service": {"type": 77}},
            {"volume_expansion": {"type": "ONLINE"}},
            {"service": {"type": "VOLUME_ACCESSIBILITY_CONSTRAINTS"}},
        ]
    )
    controller = protobuf.message("ControllerGetCapabilitiesResponse")(
        capabilities=[{}, {"rpc": {}}, {"rpc": {"type": 77}}, {"rpc": {"type": "CLONE_VOLUME"}}]
    )
    answers = {"GetPluginCapabilities": plugin, "ControllerGetCapabilities": controller}
    async with driven(tmp_path, lambda call: call.answer(answers[call.method].SerializeToString())) as (other, driver):
        found = await driver.read_capabilities()
    assert found == (
        frozenset({"CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS"}),
        frozenset({"CLONE_VOLUME"}),
    )
    assert [call.method for call in other.calls] == ["GetPluginCapabilities", "ControllerGetCapabilities"]


@pytest.mark.parametrize("failing", ["GetPluginCapabilities", "ControllerGetCapabilities", "NodeGetInfo"])
async def test_capabilities_and_node_are_asked_once(tmp_path: Path, failing: str) -> None:
    async def fail(call: Call) -> None:
        await (call.refuse(Code.UNIMPLEMENTED) if call.method == failing else call.answer())

    async with driven(tmp_path, fail) as (other, driver):
        ask = driver.node_get_info if failing == "NodeGetInfo" else driver.read_capabilities
        with pytest.raises(Fatal, match="Unimplemented") as caught:
            await ask()
    assert caught.value.code == 255
    assert [call.method for call in other.calls].count(failing) == 1


@pytest.fixture
def verbose() -> Iterator[None]:
    configure(LogSettings(verbosity=5))
    yield
    configure(LogSettings())


@pytest.mark.usefixtures("verbose")
async def test_a_call_is_logged_without_its_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.3."""
    response = csi.CreateVolumeResponse(volume=csi.Volume(volume_id="vol-1"))
    async with driven(tmp_path, always(response)) as (_, driver):
        await driver.create_volume(csi.CreateVolumeRequest(name="pvc-1", secrets={"password": "hidden"}))
    log = capsys.readouterr().err
    assert r'"GRPC call" method="/csi.v1.Controller/CreateVolume"' in log
    assert r'request="{\"name\":\"pvc-1\",\"secrets\":\"***stripped***\"}"' in log
    assert r'response="{\"volume\":{\"volume_id\":\"vol-1\"}}" err=null' in log
    assert "hidden" not in log


@pytest.mark.usefixtures("verbose")
async def test_a_failed_call_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.3."""
    async with driven(tmp_path, lambda call: call.refuse(Code.ABORTED, "busy")) as (_, driver):
        with pytest.raises(Fatal):
            await driver.identify()
    log = capsys.readouterr().err
    assert r'response="{}" err="GetPluginInfo: rpc error: code = Aborted desc = busy"' in log


async def test_below_level_5_nothing_of_a_call_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings(verbosity=4))
    async with driven(tmp_path, always(csi.DeleteVolumeResponse())) as (_, driver):
        await driver.delete_volume(csi.DeleteVolumeRequest(volume_id="v"))
    configure(LogSettings())
    assert capsys.readouterr().err == ""
