"""The page of a running process: what it shows of claims that wait, calls in flight, capacity and the last hour."""

from typing import Any

import httpx2
import pytest

from csi_provisioner.settings import CapacitySettings, HttpSettings
from tests.installation import Installation

PATHS = ("/statusz", "/statusz/data", "/flagz")


async def fetched(site: Installation, path: str, accept: str = "*/*") -> httpx2.Response:
    address = site.logged("Listening")[-1].keys["address"]
    async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        return await client.get(path, headers={"accept": accept})


async def details(site: Installation) -> dict[str, Any]:
    return dict((await fetched(site, "/statusz/data")).json()["state"]["details"])


async def test_what_waits_and_what_is_at_work_is_shown(site: Installation) -> None:
    await site.start(call_timeout=300.0)
    site.storage_class()
    site.fault("RESOURCE_EXHAUSTED", match="failing")
    site.fault(match="slow", delay=200.0)
    site.claim("failing")
    site.claim("slow")
    await site.event("failing", "ProvisioningFailed")
    await site.until(lambda: any(claim.request.name == site.volume_of("slow") for _, claim in site.asked
                                 if claim.rpc == "CreateVolume"))  # fmt: skip
    await site.rest(70)
    found = await details(site)
    waiting = {claim["name"]: claim for claim in found["waiting"]}
    assert waiting["default/failing"]["work"]["last"]["kind"] == "ResourceExhausted"
    assert waiting["default/failing"]["work"]["tries"] >= 1
    assert waiting["default/slow"]["reason"] == "call"
    [slow] = [task for task in found["tasks"] if task["name"] == "default/slow"]
    assert 69 < slow["calling"] < 75
    assert dict(found["objects"])["PersistentVolumeClaim"] == 2
    rates = {rate["what"]: rate["minutes"] for rate in found["rates"]}
    assert sum(rates["failed tries"]) >= 1
    assert len(rates["failed tries"]) >= 2
    page = (await fetched(site, "/statusz", "text/html")).text
    assert "default/failing" in page
    assert "injected fault" in page
    assert "--csi-address" not in page
    flags = (await fetched(site, "/flagz")).text
    assert "\ntimeout=5m0s\n" in flags


async def test_published_capacity_is_shown(site: Installation) -> None:
    site.storage_class()
    site.cluster.node("node-1", site.config.name, zone="a")
    capacity = CapacitySettings(enabled=True, namespace="default", ownerref_level=-1, immediate_binding=True)
    await site.start(capacity=capacity)
    await site.until(lambda: site.objects.all("CSIStorageCapacity"))
    await site.rest(1)
    found = await details(site)
    assert found["published"] == 1
    assert found["capacity"][0]["class_"] == "fast"
    assert found["capacity"][0]["segment"].endswith("=a")
    assert found["capacity"][0]["bytes"] > 0


@pytest.mark.parametrize(
    "http", [{"status_page": False}, {"legacy": True}], ids=["--status-page=false", "--metrics-address"]
)
async def test_where_it_is_not_wanted_nobody_is_shown_it(site: Installation, http: dict[str, bool]) -> None:
    await site.start(http=HttpSettings(endpoint="127.0.0.1:0", **http))
    assert [(await fetched(site, path)).status_code for path in PATHS] == [404, 404, 404]
