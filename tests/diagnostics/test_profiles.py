"""What `--enable-pprof` adds to the HTTP endpoint (process.md 7)."""

import sys
from collections.abc import AsyncIterator

import httpx2
import pytest
import trio

from csi_provisioner.diagnostics.profiles import pages
from tests.diagnostics.conversation import serving
from tests.embedded import VIRTUAL


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def client(anyio_backend: object) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        serving(pages()) as address,
        httpx2.AsyncClient(base_url=f"http://{address}/debug/pprof", timeout=None) as client,
    ):
        yield client


async def test_the_index_names_pages_that_are_there(client: httpx2.AsyncClient) -> None:
    index = (await client.get("/")).text
    named = [line.split()[0].removeprefix("/debug/pprof") for line in index.splitlines()]
    assert named == ["/cmdline", "/goroutine", "/profile"]
    for path in named:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/trace", "/heap", "/goroutine/"])
async def test_what_python_does_not_have_is_not_found(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def _waiting_for_something(_secret: str, forever: trio.Event) -> None:
    await forever.wait()


async def test_tasks_are_told_with_where_they_wait_but_not_with_values(client: httpx2.AsyncClient) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_waiting_for_something, "hunter2", trio.Event(), name="claims 1234")
        await trio.testing.wait_all_tasks_blocked()
        text = (await client.get("/goroutine")).text
        nursery.cancel_scope.cancel()
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith("claims 1234"))
    assert "_waiting_for_something" in lines[at + 1]
    assert "thread MainThread" in lines
    assert "hunter2" not in text


async def test_names_of_others_are_escaped(client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["csi-provisioner", "--volume-name-prefix=\x1b[2J", "\udcff"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="claims \x1b[2J\u202e")
        text = (await client.get("/goroutine")).text
        nursery.cancel_scope.cancel()
    assert "claims \\u001b[2J\\u202e\n" in text
    assert (await client.get("/cmdline")).text.split("\0")[1:] == ["--volume-name-prefix=\\u001b[2J", "\\udcff"]


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("", 30), ("?seconds=2", 2), ("?seconds=0", 30), ("?seconds=nan", 30), ("?seconds=x", 30), ("?seconds=inf", 600)],
)
async def test_a_profile_takes_as_long_as_it_was_asked_to(
    client: httpx2.AsyncClient, query: str, seconds: float
) -> None:
    since = trio.current_time()
    text = (await client.get(f"/profile{query}")).text
    assert trio.current_time() - since == pytest.approx(seconds, abs=0.5)
    assert "tottime" in text
    assert "trio" in text


async def test_one_profile_at_a_time(client: httpx2.AsyncClient) -> None:
    codes: list[int] = []

    async def ask() -> None:
        codes.append((await client.get("/profile?seconds=100")).status_code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert sorted(codes) == [200, 500]
    assert (await client.get("/profile")).status_code == 200


async def test_a_profile_ends_with_who_asked_for_it(client: httpx2.AsyncClient) -> None:
    with trio.move_on_after(10):
        await client.get("/profile?seconds=600")
    await trio.sleep(1)
    assert sys.getprofile() is None
    assert (await client.get("/profile?seconds=1")).status_code == 200
