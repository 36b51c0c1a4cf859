"""Trouble on order: every fault does what it says, to the requests it names and to no other."""

import httpx2
import pytest
import trio
import trio.testing

from sandbox.api.faults import Fault
from sandbox.api.objects import Objects
from sandbox.api.server import ApiServer
from tests.sandbox.api.client import config_map
from tests.sandbox.api.conftest import running

PATH = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def anyio_backend() -> object:
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


def client(server: ApiServer, agent: str = "test") -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.url, trust_env=False, timeout=None, headers={"User-Agent": agent})


@pytest.mark.parametrize(
    ("code", "reason"),
    [(403, "Forbidden"), (409, "Conflict"), (410, "Expired"), (429, "TooManyRequests"), (500, "InternalError")],
)
async def test_a_refusal_has_no_effect(server: ApiServer, code: int, reason: str) -> None:
    fault = server.faults.add(Fault("create", "ConfigMap", code=code, retry_after=3))
    async with client(server) as http:
        answer = await http.post(PATH, json=config_map("a"))
        assert (answer.status_code, answer.json()["reason"]) == (code, reason)
        assert answer.headers["Retry-After"] == "3"
        assert answer.json()["details"]["retryAfterSeconds"] == 3
        assert server.objects.find("ConfigMap", "a", "default") is None
        assert (await http.post(PATH, json=config_map("a"))).status_code == 201, "only once"
    assert fault.hits == 1
    assert [call.code for call in server.calls.of("create", "ConfigMap")] == [code, 201]


async def test_a_delay_takes_time(server: ApiServer) -> None:
    server.faults.add(Fault(delay=30.0))
    began = trio.current_time()
    async with client(server) as http:
        assert (await http.get(PATH)).status_code == 200
    assert trio.current_time() - began == pytest.approx(30, abs=1)


@pytest.mark.parametrize(
    ("cut", "written"), [("before", False), ("after", True), ("answer", True)], ids=["before", "after", "answer"]
)
async def test_a_cut_connection(server: ApiServer, cut: str, written: bool) -> None:
    server.faults.add(Fault("create", cut=cut))  # type: ignore[arg-type]
    async with client(server) as http:
        with pytest.raises(httpx2.TransportError):
            await http.post(PATH, json=config_map("a"))
        assert (server.objects.find("ConfigMap", "a", "default") is not None) is written
        assert (await http.get(PATH)).status_code == 200, "the next connection is fine"
    assert server.calls.of("create", "ConfigMap")[0].code == 0


async def test_faults_meet_whom_they_name(server: ApiServer) -> None:
    server.faults.add(Fault("get", "ConfigMap", name="a*", times=None, code=500))
    server.faults.add(Fault("update", agent="other*", times=None, code=500))
    async with client(server) as http, client(server, "other/1") as other:
        for name in ("a1", "b1"):
            await http.post(PATH, json=config_map(name))
        assert (await http.get(f"{PATH}/a1")).status_code == 500
        assert (await http.get(f"{PATH}/a1")).status_code == 500
        assert (await http.get(f"{PATH}/b1")).status_code == 200
        assert (await http.put(f"{PATH}/b1", json=config_map("b1"))).status_code == 200
        assert (await other.put(f"{PATH}/b1", json=config_map("b1"))).status_code == 500
        server.faults.clear()
        assert (await http.get(f"{PATH}/a1")).status_code == 200


async def test_a_fault_can_wait_for_its_turn(server: ApiServer) -> None:
    server.faults.add(Fault("list", skip=2, times=2, code=500))
    async with client(server) as http:
        assert [(await http.get(PATH)).status_code for _ in range(5)] == [200, 200, 500, 500, 200]


async def test_the_journal_knows_every_request(server: ApiServer) -> None:
    async with client(server) as http:
        await http.post(PATH, json=config_map("a"))
        await http.get("/api/v1/configmaps")
        await http.get(f"{PATH}/none")
        await http.get("/version")
    told = [(call.verb, call.kind, call.namespace, call.name, call.code) for call in server.calls]
    assert told == [
        ("create", "ConfigMap", "default", "", 201),
        ("list", "ConfigMap", "", "", 200),
        ("get", "ConfigMap", "default", "none", 404),
    ]
    assert {call.agent for call in server.calls} == {"test"}


async def test_tokens_are_checked() -> None:
    async with running(token="secret") as server, client(server) as http:
        assert (await http.get("/version")).status_code == 401
        assert (await http.get("/version", headers={"Authorization": "Bearer secret"})).status_code == 200
        assert 'token: "secret"' in server.kubeconfig_text()


async def test_a_restarted_server_has_its_objects_and_its_port(server: ApiServer) -> None:
    async with client(server) as http:
        await http.post(PATH, json=config_map("a"))
        await server.stop()
        with pytest.raises(httpx2.ConnectError):
            await http.get(PATH)
        async with running(server.objects, port=server.port):
            assert (await http.get(f"{PATH}/a")).status_code == 200


async def test_the_same_seed_gives_the_same_uids() -> None:
    made = [Objects(seed=7).create("Secret", {"metadata": {"generateName": "s-"}}, "default").obj for _ in range(2)]
    assert made[0]["metadata"]["uid"] == made[1]["metadata"]["uid"]
    assert made[0]["metadata"]["name"] == made[1]["metadata"]["name"]


async def test_a_watch_can_be_made_to_say_one_thing_and_end(server: ApiServer) -> None:
    server.faults.add(Fault("watch", "ConfigMap", page='{"type":"ERROR","object":{"code":500}}\n'))
    server.faults.add(Fault("watch", "ConfigMap", page=""))
    async with client(server) as http:
        for text in ('{"type":"ERROR","object":{"code":500}}\n', ""):
            answer = await http.get(PATH, params={"watch": "true"})
            assert (answer.status_code, answer.text) == (200, text)
