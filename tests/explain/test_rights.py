"""With the rights that `kustomize/` grants, and no other: nothing is refused, and none is there for nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from csi_provisioner.commands import explain
from csi_provisioner.logs import log
from csi_provisioner.settings import ElectionSettings, RetrySettings
from sandbox.api.faults import Fault
from tests import canary
from tests.cluster.controlplane import KUSTOMIZE
from tests.explain.world import SECRET
from tests.installation import CLAIM, NAMESPACE, Installation, installation
from tests.journeys.objects import from_claim, from_snapshot
from tests.rights.conftest import anyio_backend
from tests.rights.granted import granted
from tests.rights.life import CONFIG

__all__ = ["anyio_backend"]

AGENT = "*(explain)"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")
ELECTION = ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE)
ENVIRON = {"NAMESPACE": NAMESPACE, "POD_NAME": "p"}
Ask = Callable[..., Awaitable[int]]


@pytest.fixture
async def site(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, CONFIG) as one:
        yield one


@pytest.fixture
async def ask(site: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Ask]:
    async def ask_(*arguments: str) -> int:
        log.quiet = True
        given = [f"--kubeconfig={tmp_path / 'kubeconfig'}", f"--csi-address={site.cluster.socket(site.config)}"]
        return await explain.COMMAND.asked([*given, *arguments], ENVIRON, explain.wanted, explain.answer)

    yield ask_
    log.quiet = False


def of_explain() -> set[tuple[str, str]]:
    [role] = [document for document in yaml.safe_load_all((KUSTOMIZE / "components/explain/rights.yaml").read_text())
              if "rules" in document]  # fmt: skip
    return {(verb, name) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}


def only(site: Installation, rights: set[tuple[str, str]]) -> None:
    """The command is refused all else, and outside their namespace the rights that a Role grants."""
    for kind in site.objects.kinds:
        for verb in VERBS:
            where = "*" if (verb, kind.plural) not in rights else None
            if kind.name in ("Lease", "CSIStorageCapacity"):
                where = where or ""
            if where is not None:
                site.api.add(Fault(verb, kind.name, where, code=403, times=None, agent=AGENT))


async def live(site: Installation) -> None:
    """A leader, and all that a claim can meet."""
    secret = {f"{SECRET}-name": "login", f"{SECRET}-namespace": NAMESPACE}
    site.cluster.node("node-1", CONFIG.name, zone="z-1")
    site.cluster.storage_class("late", CONFIG.name)
    site.storage_class(parameters=secret)
    site.objects.create("Secret", canary.secret("login"), NAMESPACE)
    room = {"metadata": {"name": "room"}, "storageClassName": "late", "capacity": "1Gi", "nodeTopology": {}}
    site.objects.create("CSIStorageCapacity", room, NAMESPACE)
    site.snapshot("snap")
    site.fault("INTERNAL", match="restored")
    await site.start(election=ELECTION, retries=RetrySettings(start=600.0, maximum=600.0))
    site.claim()
    await site.bound("data")
    site.claim("restored", **from_snapshot("snap"))
    site.claim("copy", **from_claim("data"), volumeAttributesClassName="gold")
    site.claim("waits", "late")
    site.claim("static", "")
    site.claim("bare", "none")
    site.claim("leaves", "late")
    site.edit(CLAIM, "leaves", lambda claim: claim["metadata"].update(finalizers=["acme.test/holds"]))
    site.delete(CLAIM, "leaves")
    await site.event("restored", "ProvisioningFailed")


CODES = {"data": 0, "restored": 4, "copy": 4, "waits": 3, "static": 3, "bare": 4, "leaves": 3, "nobody": 5,
         "--class=late --size=1Gi --node=node-1": 0}  # fmt: skip


async def test_what_explain_may_do_is_what_it_needs(site: Installation, ask: Ask) -> None:
    daemons = {(right.verb, right.resource) for right in granted()}
    await live(site)
    only(site, daemons | of_explain())
    assert {words: await ask(*words.split()) for words in CODES} == CODES
    kinds = {kind.name: kind.plural for kind in site.objects.kinds}
    calls = [call for call in site.requests if call.agent.endswith("(explain)") and call.kind in kinds]
    done = {(call.verb, kinds[call.kind]) for call in calls if call.code != 403}
    refused = {(call.verb, kinds[call.kind]) for call in calls if call.code == 403}
    # An object that may only be listed is asked for by its name first.
    assert refused == {("get", "storageclasses")}
    assert of_explain() <= done
    assert {verb for verb, _ in done} == {"get", "list"}
    # Without its own rights the rest is answered.
    site.api.clear()
    only(site, daemons)
    assert {words: await ask(*words.split()) for words in CODES} == CODES
