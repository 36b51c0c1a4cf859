"""`api` is the sandbox and, in the cluster tier, a real API server: its tests hold the fake to the truth."""

import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import pytest
import trio

from sandbox.api.objects import Objects
from sandbox.api.server import ApiServer, serve
from tests.cluster.controlplane import ControlPlane
from tests.sandbox.api.client import Api


@asynccontextmanager
async def running(objects: Objects | None = None, **options: Any) -> AsyncIterator[ApiServer]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, objects=objects or Objects(seed=1), **options))
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def entering(
    url: str, *, forget: Callable[[], None], token: str = "", trust: ssl.SSLContext | None = None
) -> AsyncIterator[Api]:
    """A client of that server, in a namespace of its own that is cleaned up in the end."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    verify = trust if trust is not None else False
    async with httpx2.AsyncClient(base_url=url, headers=headers, verify=verify, trust_env=False, timeout=30) as http:
        forgetting = partial(trio.to_thread.run_sync, forget) if trust is not None else _at_once(forget)
        api = Api(http, f"test-{secrets.token_hex(4)}", forgetting, trust)
        code, body = await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": api.ns}})
        assert code == 201, body
        try:
            yield api
        finally:
            await api.clean_up()


def _at_once(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        act()

    return run


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with running() as started:
        yield started


@pytest.fixture(params=["sandbox", pytest.param("cluster", marks=pytest.mark.cluster)])
def where(request: pytest.FixtureRequest) -> ControlPlane | None:
    """The control plane to go to; None for the sandbox."""
    if request.param == "sandbox":
        return None
    plane: ControlPlane = request.getfixturevalue("control_plane")
    return plane


@pytest.fixture
async def api(where: ControlPlane | None) -> AsyncIterator[Api]:
    if where is not None:
        trust = ssl.create_default_context(cafile=str(where.ca_file))
        token, forget = where.tokens["admin"], where.restart_apiserver
        async with entering(where.server, forget=forget, token=token, trust=trust) as there:
            yield there
    else:
        async with running() as server, entering(server.url, forget=server.objects.storage.compact) as here:
            yield here
