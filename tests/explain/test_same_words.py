"""What explain calls the cause is what the provisioner says on the claim."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from csi_provisioner import supervisor
from csi_provisioner.settings import ClusterSettings, CsiSettings, Settings
from tests.embedded import VIRTUAL
from tests.explain.test_broken_claims import REFUSED, TABLE
from tests.explain.test_broken_claims import shared as shared
from tests.explain.world import World

# Of the rest no try is made, the event is the test's own, or the node that is gone is taken off the claim.
SAID = [row for row in TABLE if row[1] == REFUSED and row[2] not in ("class", "call", "right") and not row[6]
        and row[0] not in ("node-gone", "forbidden-secret")]  # fmt: skip


@pytest.fixture(scope="module")
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture
async def provisioner(shared: World, tmp_path: Path) -> AsyncIterator[None]:
    cluster = ClusterSettings(kubeconfig=str(shared.folder / "kubeconfig"), capacity_qps=None)
    settings = Settings(csi=CsiSettings(address=shared.socket()), cluster=cluster)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(supervisor.run, settings, stop=trio.Event()))
        yield
        nursery.cancel_scope.cancel()


async def test_the_cause_is_what_the_provisioner_says(
    shared: World, provisioner: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in SAID:
        row[5](shared, row[0])
    shared.server.faults.clear()

    def said() -> dict[str, str]:
        return {event["involvedObject"]["name"]: event["message"] for event in shared.objects.all("Event")}

    with trio.fail_after(600):
        while not {row[0] for row in SAID} <= said().keys():  # noqa: ASYNC110 - there is no event to wait for
            await trio.sleep(1.0)
    for name, *_ in SAID:
        found = await shared.ask(capsys, name, "-ojson")
        cause = str(found.json["cause"]).removesuffix(")").partition(" (")[0]
        assert cause.split(": no right")[0] in said()[name], name
