"""What is refused before anything is asked of the driver, or of the API server by that name (provision.md 8)."""

from typing import Any

import pytest

from tests.canary import held
from tests.installation import NAMESPACE, SNAPSHOT, Installation
from tests.journeys.objects import from_claim, from_snapshot

PREFIX = "csi.storage.k8s.io/provisioner-secret"
VICTIM = "../../elsewhere/volumesnapshots/victim"


async def _refused(site: Installation, says: str) -> None:
    event = await site.event("data", "ProvisioningFailed", 2)
    assert says in event["message"]
    assert site.calls() == []


@pytest.mark.parametrize("source", [from_snapshot(VICTIM), from_claim(VICTIM)], ids=["snapshot", "clone"])
async def test_a_source_whose_name_leads_to_another_namespace_is_refused(
    site: Installation, source: dict[str, Any]
) -> None:
    """provision.md 8.2."""
    site.storage_class()
    site.claim(**source)
    await site.start()
    await _refused(site, f"named '{VICTIM}' in namespace 'default', which no object can be called")
    assert site.requests.of("get", SNAPSHOT) == []


async def test_a_snapshot_bound_to_what_no_content_can_be_called_is_refused(site: Installation) -> None:
    """provision.md 8.7."""
    site.storage_class()
    site.snapshot("snap")
    wrong = {"boundVolumeSnapshotContentName": "../volumesnapshots"}
    site.edit(SNAPSHOT, "snap", lambda snapshot: snapshot["status"].update(wrong), status=True)
    site.claim(**from_snapshot("snap"))
    await site.start()
    await _refused(site, "it says that it is bound to '../volumesnapshots'")
    assert site.requests.of("get", "VolumeSnapshotContent") == []


async def test_a_secret_value_that_is_no_text_is_refused(site: Installation) -> None:
    """provision.md 8.9."""
    site.secret(user="me", raw={"key": "c/9wZW5zZXNhbWU="})
    site.storage_class(parameters={f"{PREFIX}-name": "login", f"{PREFIX}-namespace": NAMESPACE})
    site.claim()
    await site.start()
    await _refused(site, "the value of 'key' in secret default/login is not UTF-8 text")
    assert [line for line in site.lines if "pensesame" in f"{line.message} {line.keys}"] == []
    site.edit("Secret", "login", lambda secret: secret["data"].update(key="b2s="))
    await site.bound("data")
    assert site.calls()[0].request.secrets == held(user="me") | {"key": "ok"}


async def test_a_size_that_the_driver_cannot_be_told_is_refused(site: Installation) -> None:
    """provision.md 8.10."""
    site.storage_class()
    site.claim(resources={"requests": {"storage": "10E"}})
    await site.start()
    await _refused(site, "claim default/data asks for 10E of storage")
