"""A claim that nothing is against: what a leader knows of it, and what can be told from outside."""

from typing import Any

import pytest

from csi_provisioner.model import kubernetes as k8s
from csi_provisioner.model.live import InJournal, Live, LiveClaim
from csi_provisioner.model.state import DriverState, KeyState, Lane, LaneState, LeadershipState, Tried
from csi_provisioner.planning import wellknown
from csi_provisioner.planning.explain import explain
from csi_provisioner.planning.explanation import Explanation, Facts, Read, Status, Unread
from tests.planning.objects import DRIVER, SETTINGS, UID, claim, driver, storage_class

NOW = 1_750_000_000.0
LEASE = Read(k8s.Lease, "acme-csi-test", "storage")
EVENTS = Read(k8s.Event, "", "shop", f"involvedObject.uid={UID}")
VOLUME = Read(k8s.PersistentVolume, f"pvc-{UID}")
ABSENT = Unread("gone", missing=True)
NO_SPACE = Tried("ResourceExhausted", "rpc error: code = ResourceExhausted desc = no space", 3.0, "call")
SLOW = Tried("DeadlineExceeded", "rpc error: code = DeadlineExceeded desc = slow", 3.0, "call")
LEADS = LeadershipState(sought=True, leads=True, identity="pod-7-00000000", holder="pod-7-00000000", since=60.0)


def explained(found: dict[Read, Any] | None = None, **facts: Any) -> Explanation:
    there = {Read(k8s.StorageClass, "fast"): storage_class(), EVENTS: [], VOLUME: ABSENT} | (found or {})
    facts = {"claim": claim(), "driver": driver(), "settings": SETTINGS, "now": NOW, "elects": False} | facts
    answer = explain(Facts(found=there, **facts))
    assert answer.needs is None, answer.needs
    return answer


def live(known: LiveClaim | None = None, **fields: Any) -> Live:
    state = DriverState(DRIVER, ready=True)
    return Live(**{"driver": state, "leadership": LEADS, "works": True, "claim": known or LiveClaim(UID)} | fields)


def lease(**spec: Any) -> k8s.Lease:
    given = {"holderIdentity": "pod-7-00000000", "leaseDurationSeconds": 15, "renewTime": "2025-06-15T15:06:35.000000Z"}
    return k8s.Lease(metadata=k8s.ObjectMeta("acme-csi-test", "storage"), spec=k8s.LeaseSpec(**given | spec))


KNOWN = [
    ("call", "works", "under way for 2s", "", {"calling": 2.0}),
    ("call", "works", "3 tries failed", "", {"calling": 2.0, "work": KeyState(tries=3, last=NO_SPACE)}),
    ("call", "refused", "no space; next try in 40s", "add storage", {"work": KeyState(40.0, None, 3, NO_SPACE)}),
    ("call", "refused", "as it stands: bad parameter", "asked again in 1m0s",
     {"infeasible": 60.0, "work": KeyState(60.0, None, 1, Tried("InvalidArgument", "bad parameter", 1.0))}),
    ("queue", "works", "no class", "", {"work": KeyState(2.0, None, 1, Tried("refused", "no class", 1.0))}),
    ("queue", "works", "next try in 2s", "", {"work": KeyState(2.0, None, 1, Tried("api 500", "away", 1.0))}),
    ("queue", "works", "waits for a worker for 5s", "", {"work": KeyState(-5.0)}),
    ("queue", "works", "for 5s; of its class and source VolumeSnapshot 4 calls run of at most 4, and 30 wait", "",
     {"work": KeyState(-5.0), "lane": LaneState(Lane("fast", "VolumeSnapshot"), 4, 30, 4)}),
    ("queue", "works", "for 1s; of its class 88 calls run, and 212 wait", "",
     {"work": KeyState(running=1.0), "lane": LaneState(Lane("fast"), 88, 212)}),
    ("queue", "refused", "StorageClass 'fast' may have no calls", "max-concurrent-calls",
     {"cached": True, "lane": LaneState(Lane("fast"), bound=0)}),
    ("queue", "refused", "no calls to the driver; 3 tries failed", "max-concurrent-calls",
     {"work": KeyState(40.0, None, 3, NO_SPACE), "lane": LaneState(Lane("fast"), bound=0)}),
    ("queue", "works", "worked on for 1s", "", {"work": KeyState(running=1.0)}),
    ("queue", "works", "does not have the claim yet", "", {}),
    ("queue", "works", "nothing is due for it", "", {"cached": True}),
    ("save", "works", "being written", "", {"unsaved": "pvc-1", "unsaved_id": "h"}),
    ("save", "refused", "not valid", "another answer of the driver",
     {"unsaved": "pvc-1", "unsaved_id": "h", "saving": KeyState(last=Tried("api 422", "not valid", 1.0))}),
    ("right", "refused", "volume h is made", "grant create on persistentvolumes",
     {"unsaved": "pvc-1", "unsaved_id": "h", "saving": KeyState(last=Tried("api 403", "no (403 Forbidden)", 1.0))}),
    ("bind", "waits", "pvc-1 is written", "kube-controller-manager", {"written": "pvc-1"}),
]  # fmt: skip


@pytest.mark.parametrize(("step", "status", "text", "fix", "known"), KNOWN, ids=[row[2] for row in KNOWN])
def test_what_the_leader_knows_is_told(step: str, status: str, text: str, fix: str, known: dict[str, Any]) -> None:
    decisive = explained(live=live(LiveClaim(UID, **known))).decisive
    assert (decisive.step, decisive.status.value) == (step, status)
    assert text in decisive.text
    assert fix in decisive.fix
    assert bool(fix) == bool(decisive.fix)


def test_a_volume_that_is_made_is_written_whatever_has_become_of_its_class() -> None:
    known = LiveClaim(UID, unsaved="pvc-1", unsaved_id="h")
    decisive = explained({Read(k8s.StorageClass, "fast"): ABSENT}, live=live(known)).decisive
    assert (decisive.step, decisive.status) == ("save", Status.WORKS)


def test_a_claim_that_is_handed_over_and_names_no_provisioner_waits_for_that() -> None:
    handed_over = claim(annotations={wellknown.MIGRATED_TO: DRIVER})
    decisive = explained(claim=handed_over).decisive
    assert (decisive.step, decisive.status) == ("claim", Status.WAITS)


def test_what_was_asked_for_before_is_asked_for_again_whatever_the_nodes_say() -> None:
    found = {
        Read(k8s.StorageClass, "fast"): storage_class(),
        Read(k8s.Node): [],
        Read(k8s.CSINode): [],
    }
    selected = claim(annotations={wellknown.STORAGE_PROVISIONER: DRIVER, wellknown.SELECTED_NODE: "gone"})
    facts: dict[str, Any] = {"claim": selected, "driver": driver(topology=True)}
    assert explained(found, **facts, live=live()).decisive.step == "topology"
    known = LiveClaim(UID, uncertain=True, work=KeyState(5.0, None, 1, SLOW))
    decisive = explained(found, **facts, live=live(known)).decisive
    assert (decisive.step, decisive.status) == ("call", Status.REFUSED)
    assert decisive.fix.startswith("it may still be at work")


def test_an_entry_of_the_journal_is_told() -> None:
    entry = InJournal("pvc-1", "storage/acme-journal-", durable=True, uncertain=True, of_earlier_leader=True)
    steps = {step.step: step for step in explained(live=live(LiveClaim(UID, journal=entry))).steps}
    text = "in Leases storage/acme-journal-...; an earlier leader began it; a call for it has no certain end"
    assert steps["journal"].text == text
    assert steps["leader"].text == "this provisioner leads since 1m0s (pod-7-00000000)"


OTHERS = [
    ("driver", "has not answered for 1m30s", {"live": live(driver=DriverState(DRIVER, away=90.0))}),
    ("driver", "no socket", {"away": "no socket"}),
    ("queue", "not complete: StorageClass", {"live": live(unsynced=("StorageClass",))}),
    ("leader", "there is no Lease storage/acme-csi-test", {"elects": True, "lease": LEASE}),
    ("leader", "nobody holds Lease", {"elects": None, "lease": LEASE, "found": {LEASE: lease(holderIdentity="")}}),
    (
        "leader",
        "it ran out 10s ago",
        {"elects": None, "lease": LEASE, "found": {LEASE: lease(leaseDurationSeconds=-5)}},
    ),
]


@pytest.mark.parametrize(("step", "text", "facts"), OTHERS, ids=[row[1] for row in OTHERS])
def test_it_waits_for_others(step: str, text: str, facts: dict[str, Any]) -> None:
    decisive = explained(**{"found": {LEASE: ABSENT}} | facts).decisive
    assert (decisive.step, decisive.status) == (step, Status.WAITS)
    assert text in decisive.text
    assert decisive.fix
    assert decisive.who


def test_from_outside_the_leader_is_named_and_how_to_ask_it() -> None:
    answer = explained({LEASE: lease()}, lease=LEASE, elects=None, silent="no provisioner runs here")
    assert answer.decisive.status is Status.WORKS
    steps = {(step.step, step.status.value): step.text for step in answer.steps}
    assert steps["leader", "ok"].startswith("pod-7-00000000 leads")
    command = "kubectl -n storage exec pod-7 -c csi-provisioner -- /explain shop/a"
    assert steps["queue", "not known"] == f"no provisioner runs here; {command}"


@pytest.mark.parametrize("holder", ["pod-7; rm -rf /", "--help", "$(id)", "Pod", "a/b", "x" * 300, "é"])
def test_a_holder_that_is_no_pod_is_in_no_command(holder: str) -> None:
    """Whoever may write Leases chooses it, and people copy the line."""
    facts = {LEASE: lease(holderIdentity=holder)}
    [unknown] = [
        step.text for step in explained(facts, lease=LEASE, elects=None).steps if step.status.value == "not known"
    ]
    assert "kubectl" not in unknown
    assert unknown.endswith(f"; the Lease's holder {holder[:100]!r} names no pod")


def test_a_standby_says_so_and_names_the_leader() -> None:
    stands_by = live(None, works=False, claim=None, leadership=LeadershipState(sought=True))
    steps = explained({LEASE: lease()}, lease=LEASE, elects=True, live=stands_by).steps
    [unknown] = [step.text for step in steps if step.status is Status.NOT_KNOWN]
    assert unknown.startswith("this provisioner stands by; kubectl -n storage exec pod-7 ")


def test_a_leader_that_has_not_begun_says_so() -> None:
    begins = live(None, works=False, claim=None)
    texts = [step.text for step in explained({LEASE: lease()}, lease=LEASE, elects=True, live=begins).steps]
    assert any(text.startswith("this provisioner has not begun its work yet") for text in texts)


def event(message: str, reason: str = "ProvisioningFailed", component: str = f"{DRIVER}_pod_1") -> k8s.Event:
    return k8s.Event(
        metadata=k8s.ObjectMeta("e"),
        reason=reason,
        message=message,
        source=k8s.EventSource(component),
        lastTimestamp="2025-06-15T15:06:30Z",
    )


SAVE = "the driver has made the volume, and its PersistentVolume cannot be written: no (403 Forbidden)"
TOLD = [
    ("call", "refused", [event("CreateVolume: rpc error: code = Internal desc = no")]),
    ("right", "refused", [event(SAVE)]),
    ("driver", "waits", [event("CSI driver acme.csi.test does not answer", "DriverUnavailable")]),
    ("queue", "works", [event("StorageClass fast does not exist")]),
    ("queue", "works", [event("rpc error: code = Internal"), event("Asking the driver", "Provisioning")]),
    ("queue", "works", [event("rpc error: code = Internal", component="persistentvolume-controller")]),
]


@pytest.mark.parametrize(("step", "status", "events"), TOLD)
def test_without_a_leader_to_ask_the_last_event_says_what_stands(
    step: str, status: str, events: list[k8s.Event]
) -> None:
    decisive = explained({EVENTS: events}, elects=False).decisive
    assert (decisive.step, decisive.status.value) == (step, status)


def test_what_may_not_be_read_is_a_step_and_the_event_that_tells_of_it_stands() -> None:
    secret = "csi.storage.k8s.io/provisioner-secret"
    class_ = storage_class({f"{secret}-name": "login", f"{secret}-namespace": "ops"})
    found = {
        Read(k8s.StorageClass, "fast"): class_,
        Read(k8s.Secret, "login", "ops"): Unread("no right to get secrets", forbidden=True),
        EVENTS: [event("cannot read the provisioner secret ops/login; create it")],
    }
    answer = explained(found, elects=False)
    assert next(step.text for step in answer.steps if step.status is Status.NOT_KNOWN) == "no right to get secrets"
    assert (answer.decisive.status, answer.decisive.fix) == (Status.REFUSED, "create it")
    assert answer.plan is None
    assert explained(found, elects=False, same_account=True).decisive.step == "secret"


def test_without_the_right_to_write_volumes_the_driver_is_not_asked() -> None:
    decisive = explained(may_save=False).decisive
    assert (decisive.step, decisive.status) == ("right", Status.REFUSED)
    assert "kustomize/base" in decisive.fix


def test_of_a_refused_claim_the_tries_and_the_next_one_are_told() -> None:
    work = KeyState(40.0, None, 3, Tried("refused", "no right", 5.0, "secret"))
    found = {Read(k8s.StorageClass, "fast"): storage_class({"csi.storage.k8s.io/nonsense": "x"})}
    answer = explained(found, live=live(LiveClaim(UID, work=work)))
    assert (answer.decisive.step, answer.decisive.status) == ("parameters", Status.REFUSED)
    assert [(step.step, step.status) for step in answer.steps[-2:]] == [("leader", Status.OK), ("queue", Status.OK)]
    assert answer.steps[-1].text == "3 tries failed, the last one 5s ago: no right; next try in 40s"


def test_of_a_claim_that_has_its_node_the_room_is_told_but_stops_nothing() -> None:
    room = [k8s.CSIStorageCapacity(k8s.ObjectMeta("c"), storageClassName="fast", capacity="1Gi",
                                   nodeTopology=k8s.LabelSelector({"zone": zone})) for zone in "ab"]  # fmt: skip
    found = {
        Read(k8s.StorageClass, "fast"): storage_class(volumeBindingMode="WaitForFirstConsumer"),
        Read(k8s.Node): [k8s.Node(k8s.ObjectMeta("n", labels={"zone": "a"}))],
        Read(k8s.CSIStorageCapacity): room,
    }
    selected = {wellknown.STORAGE_PROVISIONER: DRIVER, wellknown.SELECTED_NODE: "n"}
    answer = explained(found, claim=claim(annotations=selected))
    [step] = [step for step in answer.steps if step.step == "capacity"]
    assert step.status is Status.OK
    assert step.text.startswith("none of 1 CSIStorageCapacity objects of StorageClass fast has room for 5Gi")
    assert answer.decisive.status is Status.WORKS


def test_a_claim_of_an_in_tree_plugin_waits_for_the_migration() -> None:
    in_tree = "kubernetes.io/aws-ebs"
    found = {Read(k8s.StorageClass, "fast"): storage_class(provisioner=in_tree)}
    theirs = claim(annotations={wellknown.STORAGE_PROVISIONER: in_tree})
    decisive = explained(found, claim=theirs, driver=driver(in_tree_name=in_tree)).decisive
    assert (decisive.step, decisive.status) == ("claim", Status.WAITS)
    assert "is not handed over to acme.csi.test" in decisive.text
    assert "is CSI migration on" in decisive.fix


ON_NODES = [
    ("", True, "works", "the provisioners of all nodes compete for it"),
    ("", False, "waits", "take no claims with immediate binding"),
    ("node-2", True, "waits", "makes only volumes of node-1"),
]


@pytest.mark.parametrize(("node", "takes_any", "status", "text"), ON_NODES)
def test_with_a_provisioner_on_each_node_another_one_may_have_to_act(
    node: str, takes_any: bool, status: str, text: str
) -> None:
    selected = {wellknown.STORAGE_PROVISIONER: DRIVER} | ({wellknown.SELECTED_NODE: node} if node else {})
    mine = {"own_node": k8s.NodeName("node-1"), "takes_any": takes_any}
    decisive = explained(claim=claim(annotations=selected), **mine).decisive
    assert (decisive.step, decisive.status.value) == ("node", status)
    assert text in decisive.text
