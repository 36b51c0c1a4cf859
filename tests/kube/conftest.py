"""What a reflector follows: five claims of ours and one of another driver, and a store that keeps ours."""

import pytest

from csi_provisioner.kube.store import Store
from csi_provisioner.model.kubernetes import PersistentVolumeClaim
from tests.kube.fake_api import FakeApi
from tests.kube.objects import ours


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    for name in "abcde":
        api.write(name)
    api.write("f", foreign=True)
    return api


@pytest.fixture
def store() -> Store[PersistentVolumeClaim]:
    return Store(project=ours, index="uid")
