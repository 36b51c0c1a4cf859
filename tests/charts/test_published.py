"""With roles that other people have published: do readiness, the volume journal and a standby's watch work, and what
goes without? docs/reference/rights.md has the answers; RIGHTS=write in the environment writes them there."""

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from csi_provisioner.configuration import log_settings, read
from csi_provisioner.flags import FLAGS
from csi_provisioner.kube.client import connect, resolve
from csi_provisioner.kube.reviews import is_allowed
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.rights import Right, wanted
from csi_provisioner.settings import ClusterSettings
from tests.charts import NAMES, chart, roles
from tests.cluster.controlplane import ControlPlane, free_ports
from tests.faults.test_leaders import LEADS, reads, running, seconds
from tests.journeys.objects import CLAIM
from tests.journeys.real import CAPABILITIES, Real
from tests.rights import table

pytestmark = pytest.mark.cluster

PLACE = "--leader-election-namespace=default"
# Nobody runs in a pod here, so nobody owns what is published.
OURS = (PLACE, "--capacity-ownerref-level=-1")
AT_ONCE = 2.0
"""Seconds from the release of the lease to the next leader; one that only looks now and then takes 5 to 11."""


@pytest.fixture
def published(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The chart's roles in place of ours, for the provisioner's account."""
    found = chart(request.param)
    names = {
        part: f"published {part}".replace(" ", "-") for part in ("cluster", "role", "cluster binding", "role binding")
    }
    namespace, account = control_plane.provisioner
    theirs = roles(found, names, account, namespace)
    ours = [obj for obj in control_plane.rights if obj["kind"] != "ServiceAccount"]
    control_plane.delete(*ours)
    control_plane.apply(*theirs)
    yield found | {"name": request.param}
    control_plane.delete(*theirs)
    control_plane.apply(*ours)


async def lacking(plane: ControlPlane, arguments: list[str]) -> list[Right]:
    """Of what its flags need, with a driver that can do everything but attach. Secrets are not among it."""
    facts = DriverFacts("csi.example.com", controller=frozenset(CAPABILITIES), topology=True)
    values = FLAGS.parse([*arguments, PLACE])
    environ = {"NAMESPACE": "default", "POD_NAME": "p"}
    settings = read(values, environ, log_settings(values))
    assert settings is not None
    client = connect(
        resolve(ClusterSettings(kubeconfig=str(plane.provisioner_kubeconfig))), user_agent="csi-provisioner/test"
    )
    try:
        return [
            right
            for right in wanted(settings, facts, "csi-example-com")
            if not await is_allowed(client, right.verb, right.resource, right.group, right.namespace, right.name)
        ]
    finally:
        client.close()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except urllib.error.HTTPError:
        return False


async def ready(world: Real, port: int) -> bool:
    """Once the API server has said which rights there are; before, a pod is ready too."""
    await trio.sleep(0.5)
    return await trio.to_thread.run_sync(_is_ready, port)


async def took_over(world: Real, log: Path) -> bool:
    with trio.move_on_after(10):
        await reads(world, log, "Took over the volume journal")
        return True
    return False


@pytest.mark.parametrize("published", NAMES, indirect=True, ids=NAMES)
async def test_what_works_with_published_roles_is_what_the_docs_say(
    published: dict[str, Any], real_world: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, arguments = real_world, published["arguments"]
    monkeypatch.setenv("NAMESPACE", "default")
    found = await lacking(world.plane, arguments)
    seen = {"the journal": "-", "a standby": "-", "ready": "-"}
    if not any(right.needed for right in found):
        seen = await _works(world, tmp_path, arguments)
    without = "; ".join(dict.fromkeys(f"{right.verb} {right.resource}" for right in found)) or "nothing"
    source = published["source"][0]
    cells = [published["name"], f"{source['repository']} {source['commit'][:7]}", *seen.values(), without]
    row = f"| {' | '.join(cells)} |"
    if os.environ.get("RIGHTS") == "write":
        table.put(table.PUBLISHED, row)
    assert row in table.rows(table.PUBLISHED)


async def _works(world: Real, folder: Path, arguments: list[str]) -> dict[str, str]:
    elected = any("--leader-election" in argument for argument in arguments)
    ports, logs = free_ports(2), [folder / "first.log", folder / "second.log"]
    flags = [[*arguments, *OURS, f"--http-endpoint=127.0.0.1:{port}"] for port in ports]
    await world.storage_class()
    seen = {"the journal": "no", "a standby": "alone", "ready": "no"}
    async with running(await world.another(logs[0], *flags[0])) as first:
        seen["the journal"] = "yes" if await took_over(world, logs[0]) else "no"
        await world.claim("data")
        await world.bound("data")
        seen["ready"] = "yes" if await ready(world, ports[0]) else "no"
        await world.delete(CLAIM, "data")
        await world.nothing_left()
        if elected:
            async with running(await world.another(logs[1], *flags[1])):
                await reads(world, logs[1], "The lease has a holder")
                await trio.sleep(1)
                assert await ready(world, ports[1]) == (seen["ready"] == "yes")
                first.send_signal(signal.SIGTERM)
                assert await first.wait() == 0
                released = await reads(world, logs[0], "Gave the lease back")
                took = seconds(released, await reads(world, logs[1], LEADS))
                seen["a standby"] = "at once" if took < AT_ONCE else "after up to 11 s"
    return seen
