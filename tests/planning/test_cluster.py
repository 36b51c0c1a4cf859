"""The index of nodes says the same, however it came to know them."""

from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.planning import terms
from csi_provisioner.planning.cluster import ClusterTopology

from .clusters import DRIVER, csinode, full, node

NAMES = st.sampled_from(["n1", "n2", "n3", "n4"])
LABELS = st.dictionaries(st.sampled_from(["zone", "rack", "tier"]), st.sampled_from(["a", "b"]), max_size=3)
KEYS = st.lists(st.sampled_from(["zone", "rack"]), max_size=2)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("node"), NAMES, st.none() | LABELS),
        st.tuples(st.just("csinode"), NAMES, st.none() | KEYS),
        st.tuples(st.just("ask"), NAMES, KEYS),
    ),
    max_size=30,
)
ALL_KEYS = [(), (full("zone"),), (full("rack"), full("zone"))]


@given(CHANGES)
def test_changes_one_by_one_or_all_at_once_give_the_same_cluster(changes: list[tuple[str, str, object]]) -> None:
    """topology.md 7."""
    index = ClusterTopology(DRIVER)
    nodes, csinodes = {}, {}
    for what, name, value in changes:
        if what == "ask":
            index.terms(tuple(sorted({full(key) for key in value})))
            continue
        made = None if value is None else (node if what == "node" else csinode)(name, value)
        (index.node_changed if what == "node" else index.csinode_changed)(name, None, made)
        (nodes if what == "node" else csinodes)[name] = made
    known = [n for n in nodes.values() if n is not None]
    fresh = ClusterTopology(DRIVER, known, [c for c in csinodes.values() if c is not None])
    for keys in ALL_KEYS:
        expected = terms.canonical(
            term for n in known if (term := terms.of_labels(n.metadata.labels, keys)) is not None
        )
        assert index.terms(keys) == fresh.terms(keys) == expected
        assert index.terms(keys) is index.terms(keys)
        assert [dict(message.segments) for message in index.messages(expected)] == [dict(term) for term in expected]
        assert list(index.messages(index.terms(keys))) == list(index.messages(expected))
    sets = index.registered()
    assert sets == fresh.registered()
    united = index.united(sets)
    assert united == terms.canonical(term for keys in sets for term in index.terms(keys))
    assert index.united(sets) is united
    assert [dict(message.segments) for message in index.messages(united)] == [dict(term) for term in united]
    assert all(index.keys(name) == fresh.keys(name) for name in ("n1", "n2", "n3", "n4"))


def test_the_first_entry_of_the_driver_counts() -> None:
    """topology.md 2."""
    twice = csinode("n1", ["zone"])
    assert twice.spec.drivers is not None
    twice.spec.drivers.append(csinode("n1", ["rack"]).spec.drivers[1])
    assert ClusterTopology(DRIVER, [], [twice]).keys("n1") == (full("zone"),)
