"""A process whose kubeconfig names an exec plugin. In real time: the plugin is a program."""

from pathlib import Path

import pytest

from csi_provisioner.settings import CapacitySettings, ElectionSettings
from tests.installation import NAMESPACE, Installation
from tests.kube.test_credentials import V1, Program


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


def use_plugin(site: Installation, program: Program) -> None:
    kubeconfig = Path(site.cluster.settings(site.config).cluster.kubeconfig or "")
    entry = f'{{exec: {{apiVersion: {V1}, command: "{program.path}"}}}}'
    kubeconfig.write_text(kubeconfig.read_text().replace('{token: "none"}', entry))


async def test_a_plugin_is_run_once_for_all_clients_of_the_process(site: Installation, tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.prints(token="t")
    use_plugin(site, program)
    await site.start(
        election=ElectionSettings(enabled=True, namespace=NAMESPACE),
        capacity=CapacitySettings(enabled=True, namespace=NAMESPACE, ownerref_level=-1),
    )
    assert {call.kind for call in site.requests} >= {"Lease", "CSIStorageCapacity", "PersistentVolumeClaim"}
    assert len(program.told()) == 1
