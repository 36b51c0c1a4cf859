"""Node-deployment.md 5 on a real API server: twenty nodes race for claims that any of them may have."""

import ssl
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from csi_provisioner import supervisor
from csi_provisioner.settings import ClusterSettings, CsiSettings, NodeSettings, Settings
from sandbox.driver import GIB, Config, Driver, Pool
from tests.cluster.controlplane import ControlPlane
from tests.sandbox.api.client import CLAIMS, CLASSES, VOLUMES, Api, Object
from tests.sandbox.api.conftest import entering

pytestmark = pytest.mark.cluster

PLUGIN = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
NODES, CLAIMED = 20, 100
SELECTED = "volume.kubernetes.io/selected-node"
PATIENCE = 150.0


async def deploy(nursery: trio.Nursery, plane: ControlPlane, folder: Path, driver_name: str, node: str) -> Driver:
    segment = {f"{driver_name}/node": node}
    pools = (Pool(segment, 200 * GIB, 200 * GIB),)
    driver = Driver(Config(name=driver_name, plugin=PLUGIN, pools=pools, node_id=node, node_segment=segment))
    settings = Settings(
        csi=CsiSettings(address=str(folder / f"{node}.sock")),
        cluster=ClusterSettings(kubeconfig=str(plane.provisioner_kubeconfig)),
        nodes=NodeSettings(enabled=True, node_name=node, base_delay=4.0, max_delay=8.0),
    )
    await nursery.start(driver.serve, settings.csi.address)
    nursery.start_soon(partial(supervisor.run, settings, stop=trio.Event()))
    return driver


async def mine(api: Api, path: str, holds: Any) -> list[Object]:
    return [obj for obj in (await api.get(path))["items"] if holds(obj)]


async def test_twenty_nodes_race_for_a_hundred_claims_on_a_real_api_server(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    trust = ssl.create_default_context(cafile=str(control_plane.ca_file))
    token = control_plane.tokens["admin"]
    async with entering(control_plane.server, forget=lambda: None, token=token, trust=trust) as api:
        name = f"{api.ns}.csi.example.com"
        async with trio.open_nursery() as nursery:
            nodes = [f"race-{number}" for number in range(NODES)]
            drivers = [await deploy(nursery, control_plane, tmp_path, name, node) for node in nodes]
            mode = {"provisioner": name, "volumeBindingMode": "Immediate"}
            await api.create(CLASSES, {"metadata": {"name": api.unique("race")}} | mode)
            wanted = {"accessModes": ["ReadWriteOnce"], "storageClassName": api.unique("race")}
            wanted |= {"resources": {"requests": {"storage": "1Gi"}}}
            for number in range(CLAIMED):
                await api.create(CLAIMS, {"metadata": {"name": f"data-{number}"}, "spec": wanted})
            with trio.fail_after(PATIENCE):
                while True:
                    claims = await mine(api, CLAIMS, lambda claim: claim["status"].get("phase") == "Bound")
                    if len(claims) == CLAIMED:
                        break
                    await trio.sleep(0.5)
            volumes = await mine(api, VOLUMES, lambda pv: pv["spec"].get("csi", {}).get("driver") == name)
            api.made += [f"{VOLUMES}/{volume['metadata']['name']}" for volume in volumes]
            nursery.cancel_scope.cancel()
    made = [volume.name for driver in drivers for volume in driver.state.volumes.values()]
    assert len(made) == len(set(made)) == len(volumes) == CLAIMED
    assert sum(len(driver.made("CreateVolume")) for driver in drivers) == CLAIMED
    of = {driver.config.node_id: {volume.name for volume in driver.state.volumes.values()} for driver in drivers}
    for claim in claims:
        assert claim["spec"]["volumeName"] in of[claim["metadata"]["annotations"][SELECTED]]
