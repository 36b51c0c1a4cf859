"""Without each right in turn: what is not seen any more, and that people are told what to grant.

RIGHTS=write in the environment writes what is seen into docs/reference/rights.md. Marked for the session `rights`
because of its time; it needs no cluster.
"""

import os

import pytest

from csi_provisioner.settings import ElectionSettings
from sandbox.api.faults import Fault
from tests.charts import NAMES
from tests.installation import NAMESPACE, Installation
from tests.rights import table
from tests.rights.granted import Granted, granted
from tests.rights.life import CONFIG, is_ready, losses

pytestmark = pytest.mark.cluster


async def test_with_all_rights_everything_is_seen(site: Installation) -> None:
    lacking, told = await losses(site, lambda: None)
    assert lacking == set()
    assert "Rights are missing" not in told


def _take(site: Installation, right: Granted) -> None:
    [kind] = [kind for kind in site.objects.kinds if kind.plural == right.resource]
    said = f'User "u" cannot {right.verb} resource "{right.resource}" in API group "{right.group}"'
    site.api.denied.add((right.verb, right.resource))
    site.api.add(Fault(right.verb, kind.name, code=403, message=said, times=None, agent="csi-provisioner*"))
    if (right.verb, right.resource) == ("create", "leases"):  # those that are there need not be made
        for lease in site.objects.all("Lease"):
            site.objects.delete("Lease", lease["metadata"]["name"], NAMESPACE)


@pytest.mark.parametrize("right", granted(), ids=str)
async def test_what_is_missing_without_a_right_is_what_the_docs_say(site: Installation, right: Granted) -> None:
    lacking, told = await losses(site, lambda: _take(site, right))
    assert lacking
    assert f"kustomize/{right.folder} " in told
    row = table.without(right, lacking)
    if os.environ.get("RIGHTS") == "write":
        table.put(table.WITHOUT, row)
    assert row in table.rows(table.WITHOUT)


@pytest.mark.parametrize("verb", ["get", "create", "update"])
async def test_without_an_election_a_right_on_leases_costs_the_journal_alone(site: Installation, verb: str) -> None:
    [right] = [right for right in granted() if (right.verb, right.resource) == (verb, "leases")]
    site.cluster.node("node-1", CONFIG.name, zone="z-1")
    site.storage_class()
    _take(site, right)
    await site.start(election=ElectionSettings(own_namespace=NAMESPACE))
    site.claim()
    await site.bound("data")
    await site.until(lambda: "no volume journal" in str([line.keys for line in site.logged("Rights are missing")]))
    assert await is_ready(site)
    await site.until(lambda: site.logged("No volume journal"))


def test_the_docs_have_a_row_for_each_right_and_no_more() -> None:
    named = [row.split("|")[1] for row in table.rows(table.WITHOUT)]
    assert sorted(named) == sorted(table.without(right, set()).split("|")[1] for right in granted())


def test_the_docs_have_a_row_for_each_set_of_published_roles() -> None:
    assert sorted(row.split("|")[1].strip() for row in table.rows(table.PUBLISHED)) == NAMES
