"""Which rights the process needs, by flags and driver (process.md 5.3, 11)."""

import pytest
from msgspec.structs import replace

from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.rights import Right, wanted
from csi_provisioner.settings import Settings

PLAIN = DriverFacts("csi.example.com", controller=frozenset({"CREATE_DELETE_VOLUME"}))
DEFAULT = Settings()


def rights(settings: Settings = DEFAULT, facts: DriverFacts = PLAIN) -> list[Right]:
    return list(wanted(settings, facts, "csi-example-com"))


def texts(needed: bool, settings: Settings = DEFAULT, facts: DriverFacts = PLAIN) -> set[str]:
    return {str(right) for right in rights(settings, facts) if right.needed is needed}


ALWAYS = {
    f"{verb} {kind}"
    for verb in ("list", "watch")
    for kind in ("persistentvolumeclaims", "persistentvolumes", "storageclasses.storage.k8s.io")
} | {"create persistentvolumes"}


def test_a_plain_driver_needs_to_follow_claims_volumes_and_classes_and_to_write_volumes() -> None:
    assert texts(needed=True) == ALWAYS


def both(*kinds: str) -> set[str]:
    return {f"{verb} {kind}" for verb in ("list", "watch") for kind in kinds}


NODES = both("nodes", "csinodes.storage.k8s.io")
LEASES = {
    "create leases.coordination.k8s.io in namespace ns",
    "get leases.coordination.k8s.io csi-example-com in namespace ns",
    "update leases.coordination.k8s.io csi-example-com in namespace ns",
}
CAPACITY = {
    f"{verb} csistoragecapacities.storage.k8s.io in namespace ns"
    for verb in ("list", "watch", "create", "patch", "delete")
}
ELECTION = replace(DEFAULT, election=replace(DEFAULT.election, enabled=True, namespace="ns"))
PUBLISHING = replace(DEFAULT, capacity=replace(DEFAULT.capacity, enabled=True, namespace="ns"))
ATTACHING = DriverFacts("d", controller=frozenset({"PUBLISH_UNPUBLISH_VOLUME"}))


def owned(settings: Settings, level: int) -> Settings:
    return replace(settings, capacity=replace(settings.capacity, ownerref_level=level))


MORE: dict[str, tuple[Settings, DriverFacts, set[str]]] = {
    "topology": (DEFAULT, DriverFacts("d", topology=True), NODES),
    "topology of one node": (
        replace(DEFAULT, nodes=replace(DEFAULT.nodes, enabled=True, node_name="n")),
        DriverFacts("d", topology=True),
        set(),
    ),
    "attachments": (DEFAULT, ATTACHING, both("volumeattachments.storage.k8s.io")),
    "grants": (
        replace(DEFAULT, gates=replace(DEFAULT.gates, cross_namespace=True)),
        PLAIN,
        both("referencegrants.gateway.networking.k8s.io"),
    ),
    "election": (ELECTION, PLAIN, LEASES),
    "capacity": (owned(PUBLISHING, 1), PLAIN, CAPACITY | NODES | {"get pods in namespace ns"}),
    "capacity of a Deployment": (
        owned(PUBLISHING, 2),
        PLAIN,
        CAPACITY | NODES | {"get pods in namespace ns", "get replicasets.apps in namespace ns"},
    ),
    "capacity without an owner": (owned(PUBLISHING, -1), PLAIN, CAPACITY | NODES),
}


@pytest.mark.parametrize(("settings", "facts", "more"), MORE.values(), ids=MORE.keys())
def test_each_part_that_is_on_needs_its_own(settings: Settings, facts: DriverFacts, more: set[str]) -> None:
    assert texts(True, settings, facts) == ALWAYS | more


def journal(settings: Settings) -> dict[str, bool]:
    """The rights on leases of whatever name, and whether they are needed."""
    leases = (right for right in rights(settings) if right.resource == "leases" and not right.name)
    return {right.verb: right.needed for right in leases}


def keeping(journal: str, settings: Settings = DEFAULT) -> Settings:
    return replace(settings, provisioning=replace(settings.provisioning, volume_journal=journal))


IN_A_POD = replace(DEFAULT, election=replace(DEFAULT.election, own_namespace="ns"))


def test_the_journal_needs_leases_where_it_is_kept() -> None:
    assert journal(IN_A_POD) == dict.fromkeys(("get", "create", "update"), False)
    assert journal(keeping("on")) == dict.fromkeys(("get", "create", "update"), True)
    elected = replace(IN_A_POD, election=replace(IN_A_POD.election, enabled=True))
    assert journal(elected) == {"get": False, "create": True, "update": False}
    assert journal(DEFAULT) == journal(keeping("off", IN_A_POD)) == {}


def test_the_rest_says_what_does_not_work_without_it() -> None:
    snapshots = DriverFacts("d", controller=frozenset({"CREATE_DELETE_SNAPSHOT"}))
    others = [right for right in rights(ELECTION, snapshots) if not right.needed]
    assert all(right.without for right in others)
    assert {right.resource for right in others} >= {"events", "volumesnapshots", "volumeattributesclasses", "leases"}


def test_a_right_shows_the_rule_to_add() -> None:
    right = Right("get", "leases", "coordination.k8s.io", "ns", "lock")
    rule = '{apiGroups: ["coordination.k8s.io"], resources: [leases], verbs: [get], resourceNames: [lock]}'
    assert right.rule == rule


def test_what_goes_by_the_drivers_name_waits_until_it_is_known() -> None:
    found = {str(right) for right in wanted(ELECTION, DriverFacts(""), "") if right.resource == "leases"}
    assert "create leases.coordination.k8s.io in namespace ns" in found
    assert not [right for right in found if right.startswith(("get", "update", "watch"))]
