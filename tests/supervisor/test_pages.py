"""Which pages the process has, by its settings (process.md 6.6, 7)."""

import httpx2
import pytest

from csi_provisioner.settings import ElectionSettings, HttpSettings
from tests.installation import NAMESPACE, Installation

METRICS, HEALTH, PROFILES = "/m", "/healthz/leader-election", "/debug/pprof/"


@pytest.mark.parametrize(
    ("election", "http", "expected"),
    [
        (False, {}, {METRICS}),
        (True, {}, {METRICS, HEALTH}),
        (True, {"legacy": True}, {METRICS}),
        (False, {"pprof": True}, {METRICS, PROFILES}),
        (True, {"legacy": True, "pprof": True}, {METRICS, PROFILES}),
    ],
    ids=["plain", "leader election", "--metrics-address", "--enable-pprof", "--metrics-address --enable-pprof"],
)
async def test_7_pages(site: Installation, election: bool, http: dict[str, bool], expected: set[str]) -> None:
    await site.start(
        http=HttpSettings(endpoint="127.0.0.1:0", path=METRICS, **http),
        election=ElectionSettings(enabled=election, namespace=NAMESPACE),
    )
    address = site.logged("Listening")[-1].keys["address"]
    async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        found = {path for path in (METRICS, HEALTH, PROFILES, "/") if (await client.get(path)).status_code == 200}
    assert found == expected
