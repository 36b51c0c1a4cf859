"""A claim, and a provisioner that runs here: it takes over its flags, and what only the leader knows is told."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from csi_provisioner.commands import explain
from csi_provisioner.logs import log
from csi_provisioner.settings import ElectionSettings, ProvisioningSettings, RetrySettings
from tests.explain.world import Answer
from tests.installation import CLAIM, NAMESPACE, Installation, anyio_backend, site

__all__ = ["anyio_backend", "site"]

Ask = Callable[..., Awaitable[Answer]]
LATER = "2099-01-01T00:00:00.000000Z"


@pytest.fixture
async def ask(site: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Ask]:
    async def ask_(*arguments: str) -> Answer:
        log.quiet = True
        given = [f"--kubeconfig={tmp_path / 'kubeconfig'}", f"--csi-address={site.cluster.socket(site.config)}"]
        capsys.readouterr()
        code = await explain.COMMAND.asked([*given, "-ojson", *arguments], {}, explain.wanted, explain.answer)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    yield ask_
    log.quiet = False


async def test_what_the_leader_knows_of_a_claim_is_told(site: Installation, ask: Ask) -> None:
    site.storage_class()
    await site.start(provisioning=ProvisioningSettings(extra_create_metadata=True, default_fstype="xfs"))
    site.fault("INVALID_ARGUMENT", delay=5.0, message="no such pool")
    site.claim()
    await site.until(lambda: site.calls())
    found = await ask("data", "--request")
    assert (found.code, found.json["reason"], found.json["status"]) == (0, "call", "works"), found
    assert "With the flags of the provisioner that runs here" in found.err
    assert found.json["request"]["volume_capabilities"][0]["mount"] == {"fs_type": "xfs"}
    await site.event("data", "ProvisioningFailed")
    found = await ask("data")
    assert (found.code, found.json["reason"]) == (4, "call")
    assert "the driver refuses the claim as it stands" in found.json["cause"]
    assert "no such pool" in found.json["cause"]
    assert "asked again in " in found.json["fix"]


async def test_what_an_earlier_call_asked_with_is_in_the_request(site: Installation, ask: Ask) -> None:
    def annotate(value: str) -> None:
        site.edit(CLAIM, "data", lambda claim: claim["metadata"].update(annotations={"acme.test/tier": value}))

    site.storage_class()
    site.fault("DEADLINE_EXCEEDED")
    await site.start(provisioning=ProvisioningSettings(claim_annotation_prefixes=("acme.test/",)))
    site.claim()
    annotate("gold")
    await site.event("data", "ProvisioningFailed")
    annotate("iron")
    found = await ask("data", "--request")
    assert found.json["request"]["parameters"]["acme.test/tier"] == site.calls()[0].request.parameters["acme.test/tier"]


async def test_a_claim_that_waits_for_its_class_is_told_how_many_calls_that_may_have(
    site: Installation, ask: Ask
) -> None:
    site.storage_class()
    await site.start(retries=RetrySettings(class_workers=(("fast", 1),)))
    site.fault(delay=5.0)
    site.claim("first")
    await site.until(lambda: site.calls())
    site.claim()
    await site.rest(1)
    found = await ask("data")
    assert (found.code, found.json["reason"], found.json["status"]) == (0, "queue", "works"), found
    assert "of its class 1 calls run of at most 1, and 1 wait" in found.json["cause"]


async def test_a_volume_that_may_not_be_written_is_told_with_the_right(site: Installation, ask: Ask) -> None:
    site.storage_class()
    await site.start()
    site.refuse("create", "PersistentVolume", 403)
    site.claim()
    await site.event("data", "ProvisioningFailed")
    found = await ask("data")
    assert (found.code, found.json["reason"]) == (4, "right")
    assert "is made, and its PersistentVolume cannot be written" in found.json["cause"]
    assert found.json["fix"].startswith("grant create on persistentvolumes")


async def test_a_driver_that_is_away_is_waited_for(site: Installation, ask: Ask) -> None:
    site.storage_class()
    await site.start()
    site.kill_driver()
    await trio.sleep(5.0)
    site.claim()
    found = await ask("data")
    assert (found.code, found.json["reason"]) == (3, "driver")
    assert "has not answered for " in found.json["cause"]


async def test_a_standby_names_the_leader(site: Installation, ask: Ask) -> None:
    site.storage_class()
    name = site.config.name.replace(".", "-")
    spec = {
        "holderIdentity": "other-0-0a1b2c3d",
        "leaseDurationSeconds": 3600,
        "renewTime": LATER,
        "acquireTime": LATER,
    }
    site.objects.create("Lease", {"metadata": {"name": name}, "spec": spec}, NAMESPACE)
    election = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)
    settings = site.cluster.settings(site.config, election=election)
    site.cluster.provisioner(settings)
    await site.until(lambda: site.requests.of("get", "Lease"))
    site.claim()
    found = await ask("data", f"--leader-election-namespace={NAMESPACE}")
    steps = [step["text"] for step in found.json["steps"] if step["step"] in ("leader", "queue")]
    assert steps[0].startswith("other-0-0a1b2c3d leads since ")
    assert "kubectl -n default exec other-0 -c csi-provisioner -- /explain default/data" in steps[1]
