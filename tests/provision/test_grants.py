"""ReferenceGrants in whichever version the cluster serves them: asked at the start, and again when it is gone."""

from dataclasses import replace

import pytest

from csi_provisioner.settings import Gates, ProvisioningSettings
from tests.installation import CLAIM, NAMESPACE, SNAPSHOT, Installation

GRANT = "ReferenceGrant"


def _serve(site: Installation, *versions: str) -> None:
    kinds = site.objects.kinds
    kinds.add(replace(kinds.named(GRANT), versions=versions, heads={}))


def _grant(site: Installation) -> None:
    spec = {
        "from": [{"group": "", "kind": CLAIM, "namespace": NAMESPACE}],
        "to": [{"group": "snapshot.storage.k8s.io", "kind": SNAPSHOT}],
    }
    version = site.objects.kinds.named(GRANT).api_version()
    site.objects.create(
        GRANT, {"apiVersion": version, "kind": GRANT, "metadata": {"name": "restore"}, "spec": spec}, "shared"
    )


async def _start(site: Installation) -> None:
    site.storage_class()
    site.snapshot("snap", namespace="shared")
    await site.start(gates=Gates(cross_namespace=True), provisioning=ProvisioningSettings(cross_namespace=True))


def _claim(site: Installation) -> None:
    group = "snapshot.storage.k8s.io"
    site.claim(dataSourceRef={"apiGroup": group, "kind": SNAPSHOT, "name": "snap", "namespace": "shared"})


@pytest.mark.parametrize("versions", [("v1",), ("v1beta1",), ("v1beta1", "v1")], ids=" ".join)
async def test_grants_are_seen_in_the_version_that_is_served(site: Installation, versions: tuple[str, ...]) -> None:
    _serve(site, *versions)
    site.objects.create("Namespace", {"metadata": {"name": "shared"}})
    _grant(site)
    await _start(site)
    _claim(site)
    await site.bound("data")


async def test_the_version_is_asked_again_once_it_is_no_longer_served(site: Installation) -> None:
    _serve(site, "v1beta1")
    site.objects.create("Namespace", {"metadata": {"name": "shared"}})
    await _start(site)
    _serve(site, "v1")
    site.api.cut_watches(GRANT)
    await site.rest(100)
    _grant(site)
    _claim(site)
    await site.bound("data")


async def test_where_both_versions_are_served_the_newer_is_watched(site: Installation) -> None:
    _serve(site, "v1beta1", "v1")
    site.objects.create("Namespace", {"metadata": {"name": "shared"}})
    await _start(site)
    _serve(site, "v1")
    site.api.cut_watches(GRANT)
    await site.rest(100)
    assert len(site.requests.of("list", GRANT)) == 1, "the watch goes on"
    _grant(site)
    _claim(site)
    await site.bound("data")
