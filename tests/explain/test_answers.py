"""What the command prints, and how it ends, where nothing is broken or little is known."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from csi_provisioner.logs import log
from csi_provisioner.planning.steps import CAPACITY, EVENTS, FINALIZERS, JOURNAL, LEADER, QUOTA, REASONS
from tests import canary
from tests.embedded import VIRTUAL
from tests.explain.world import DRIVER, NAMESPACE, SECRET, World, worlds
from tests.journeys.objects import from_snapshot

WORDS = {*REASONS, QUOTA, CAPACITY, LEADER, JOURNAL, FINALIZERS, EVENTS}


@pytest.fixture(scope="module")
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture(scope="module")
async def shared(anyio_backend: object, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    log.quiet = True
    async with worlds(tmp_path_factory.mktemp("world")) as world:
        parameters = {f"{SECRET}-name": "login", f"{SECRET}-namespace": NAMESPACE, "tier": "hot"}
        world.storage_class(parameters=parameters)
        world.storage_class("late", late=True)
        world.storage_class("other", "other.acme.test")
        world.secret("login")
        world.snapshot("snap")
        world.node("node-a", ["zone"], zone="a")
        yield world
    log.quiet = False


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    canary.arm()  # the Secret is older than the test
    yield shared
    shared.server.faults.clear()


Capture = pytest.CaptureFixture[str]


async def test_a_claim_that_nothing_is_against_is_worked_on(world: World, capsys: Capture) -> None:
    world.claim("fine", **from_snapshot("snap"), finalizers=["kubernetes.io/pvc-protection"])
    found = await world.ask(capsys, "default/fine", "-ojson", "--request")
    assert found.code == 0
    shown = found.json
    assert (shown["version"], shown["claim"], shown["driver"]) == (1, "default/fine", DRIVER)
    assert (shown["status"], shown["reason"], shown["assumed"]) == ("works", "queue", [])
    steps = {step["step"]: step for step in shown["steps"]}
    assert set(steps) <= WORDS
    assert steps["source"]["text"].startswith("VolumeSnapshot default/snap, in the storage s")
    assert steps["secret"]["text"] == "default/login with the keys password"
    assert steps["topology"]["text"] == "asked for acme.test/zone=a"
    assert steps["finalizers"]["text"] == "kubernetes.io/pvc-protection"
    assert steps["leader"]["status"] == "not known"
    request = shown["request"]
    assert request["parameters"] == {"tier": "hot"}
    assert request["volume_content_source"] == {"snapshot": {"snapshot_id": "s"}}
    assert request["secrets"] == "***stripped***"


async def test_a_bound_claim_has_nothing_to_do(world: World, capsys: Capture) -> None:
    world.claim("bound", status={"phase": "Bound"}, volumeName="pv-1")
    found = await world.ask(capsys, "bound")
    assert found.code == 0
    assert found.out.startswith("default/bound: it is bound to PersistentVolume pv-1\n")


async def test_a_claim_that_is_not_there_ends_with_5(world: World, capsys: Capture) -> None:
    found = await world.ask(capsys, "kube-system/nobody")
    assert (found.code, found.out, found.err) == (5, "", "There is no claim nobody in namespace kube-system.\n")
    found = await world.ask(capsys, "nobody")
    assert (found.code, found.err) == (5, "There is no claim nobody in any namespace.\n")


async def test_where_nobody_may_look_no_claim_is_said_to_be_missing(world: World, capsys: Capture) -> None:
    world.deny("list", "PersistentVolumeClaim")
    found = await world.ask(capsys, "nobody")
    assert found.code == 1
    assert "in namespace default, and others are not known: no right to list persistentvolumeclaims" in found.err


async def test_a_claim_is_found_without_its_namespace_where_there_is_one_of_the_name(
    world: World, capsys: Capture
) -> None:
    for namespace in ("kube-system", "kube-public"):
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        world.make("PersistentVolumeClaim", "afar", namespace, spec=spec | {"storageClassName": "none"})
        found = await world.ask(capsys, "afar", "-ojson")
        if namespace == "kube-system":
            assert (found.code, found.json["claim"]) == (4, "kube-system/afar")
    assert found.code == 2
    assert "2 claims are named so: which one? kube-public/afar, kube-system/afar" in found.err
    assert (await world.ask(capsys, "afar", "--namespace=default")).code == 5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "it takes one [NAMESPACE/]CLAIM"),
        (["a", "b"], "it takes one [NAMESPACE/]CLAIM"),
        (["a/b/c"], "a claim is named NAMESPACE/CLAIM"),
        (["a", "--class=fast", "--size=1Gi"], "with a claim none of them"),
        (["--class=fast"], "both --class and --size"),
        (["--node=n"], "both --class and --size"),
        (["/a"], "a claim is named NAMESPACE/CLAIM"),
        (["shop/"], "a claim is named NAMESPACE/CLAIM"),
        (["A_b"], "a claim is named NAMESPACE/CLAIM"),
        (["--class=fast", "--size=-5Gi"], "it must be a size above 0"),
        (["a", "--output=xml"], "it must be text or json"),
    ],
)
async def test_wrong_flags_end_with_2(world: World, capsys: Capture, arguments: list[str], text: str) -> None:
    found = await world.ask(capsys, *arguments)
    assert (found.code, found.out) == (2, "")
    assert text in found.err


async def test_what_cannot_be_asked_ends_with_1(world: World, capsys: Capture) -> None:
    for verb in ("get", "list"):
        world.deny(verb, "PersistentVolumeClaim")
    found = await world.ask(capsys, "fine")
    assert found.code == 1
    assert "no right to get persistentvolumeclaims (kustomize/base has it)" in found.err


async def test_from_outside_the_first_line_says_what_was_assumed(world: World, capsys: Capture) -> None:
    world.claim("outside", "late", node="node-a")
    found = await world.ask(capsys, "outside", driver="")
    assert found.code == 0
    first = found.out.partition("default/outside ")[0].replace("\n", " ")
    assert first.startswith(f"Assumed: the driver is {DRIVER} (--provisioner NAME says which); it has topology")
    assert "node-a has acme.test/zone=a for the driver's keys; asked for acme.test/zone=a" in found.out.replace(
        "\n" + " " * 23, " "
    )
    found = await world.ask(capsys, "outside", f"--provisioner={DRIVER}", driver="")
    assert found.out.startswith("Assumed: it has topology")


async def test_from_outside_a_class_without_a_provisioner_is_nobodys(world: World, capsys: Capture) -> None:
    world.storage_class("local", "kubernetes.io/no-provisioner")
    world.claim("local", "local", of="")
    found = await world.ask(capsys, "local", "-ojson", driver="")
    assert (found.code, found.json["reason"]) == (3, "class")
    found = await world.ask(capsys, "--class=local", "--size=5Gi", "-ojson", driver="")
    assert (found.code, found.json["reason"]) == (3, "class")
    world.volume("free", class_="local")
    found = await world.ask(capsys, "local", "-ojson", driver="")
    assert (found.code, found.json["reason"]) == (3, "bind")
    assert "free would fit" in found.json["cause"]


async def test_only_rights_to_list_are_enough_for_single_objects(world: World, capsys: Capture) -> None:
    world.claim("listed")
    for kind in ("PersistentVolumeClaim", "StorageClass", "PersistentVolume"):
        world.deny("get", kind)
    found = await world.ask(capsys, "listed", "-ojson")
    assert (found.code, found.json["reason"]) == (0, "queue")


async def test_what_may_not_be_read_is_a_step_of_its_own(world: World, capsys: Capture) -> None:
    world.claim("dark", "late", of="")
    for kind in ("Pod", "Event"):
        world.deny("list", kind)
    found = await world.ask(capsys, "dark", "-ojson")
    unknown = [step["text"] for step in found.json["steps"] if step["status"] == "not known"]
    assert unknown == [
        "no right to list events (kustomize/components/explain has it)",
        "no right to list pods (kustomize/components/explain has it)",
    ]
    assert (found.code, found.json["reason"]) == (3, "node")


async def test_a_driver_that_is_named_and_does_not_answer_is_waited_for(world: World, capsys: Capture) -> None:
    world.claim("away")
    found = await world.ask(capsys, "away", "-ojson", f"--csi-address={world.folder}/none.sock", driver="")
    assert (found.code, found.json["reason"]) == (3, "driver")
    assert "look at the driver's container" in found.json["fix"]


async def test_an_attributes_class_that_the_cluster_does_not_serve_is_left_out(world: World, capsys: Capture) -> None:
    world.claim("attributed", volumeAttributesClassName="gold")
    assert (await world.ask(capsys, "attributed")).code == 4
    kind = world.objects.kinds.named("VolumeAttributesClass")
    world.objects.kinds.remove(kind)
    found = await world.ask(capsys, "attributed")
    world.objects.kinds.add(kind)
    assert found.code == 0


async def test_a_provisioner_of_a_node_needs_no_nodes(world: World, capsys: Capture) -> None:
    for kind in ("Node", "CSINode"):
        world.deny("*", kind)
    for name, node, code in (("mine", "node-7", 0), ("theirs", "node-8", 3)):
        world.claim(name, "late", node=node)
        found = await world.ask(capsys, name, "-ojson", "--node-deployment", environ={"NODE_NAME": "node-7"})
        assert found.code == code
        steps = {step["step"]: step["text"] for step in found.json["steps"]}
        if name == "mine":
            assert (
                steps["topology"] == "node-7 has acme.test/zone=z-7 for the driver's keys; asked for acme.test/zone=z-7"
            )
        else:
            assert steps["node"] == "node node-8 is selected, and this provisioner makes only volumes of node-7"


async def test_texts_of_others_do_no_harm_to_the_terminal(world: World, capsys: Capture) -> None:
    world.event("loud", world.claim("loud"), "driver: rpc error: code = Internal desc = \x1b[2J" + "x" * 300)
    found = await world.ask(capsys, "loud")
    assert found.code == 4
    assert "\x1b" not in found.out
    assert max(map(len, found.out.splitlines())) <= 100


# ---- without a claim

DRY: list[tuple[int, str, str, list[str]]] = [
    (0, "call", "would be asked for the volume", ["--class=fast", "--size=5Gi"]),
    (3, "node", "a node is selected once a pod uses the claim", ["--class=late", "--size=5Gi"]),
    (0, "call", "would be asked for the volume", ["--class=late", "--size=5Gi", "--node=node-a"]),
    (4, "topology", "failed to get selected CSINode node-z", ["--class=late", "--size=5Gi", "--node=node-z"]),
    (4, "class", "StorageClass 'none'", ["--class=none", "--size=5Gi"]),
    (4, "claim", "asks for 9Ei of storage", ["--class=fast", "--size=9Ei"]),
    (3, "class", "is of provisioner other.acme.test", ["--class=other", "--size=5Gi"]),
    (4, "quota", "allows 10Gi of requests.storage, and 8Gi is used",
     ["--class=fast", "--size=5Gi", "--namespace=full"]),
    (4, "quota", "allows 1 of fast.storageclass.storage.k8s.io/persistentvolumeclaims, and 1 is used",
     ["--class=fast", "--size=1Gi", "--namespace=full"]),
    (3, "capacity", "none of 1 CSIStorageCapacity objects of StorageClass late has room for 50Gi",
     ["--class=late", "--size=50Gi", "--node=node-a"]),
]  # fmt: skip


@pytest.fixture(scope="module")
async def full(shared: World) -> World:
    shared.make("Namespace", "full")
    hard = {"requests.storage": "10Gi", "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "pods": "0"}
    used = {"requests.storage": "8Gi", "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1"}
    shared.make("ResourceQuota", "small", "full", spec={"hard": hard}, status={"hard": hard, "used": used})
    place = {"matchLabels": {"acme.test/zone": "a"}}
    for name, zone, size in (("here", place, "20Gi"), ("there", {"matchLabels": {"acme.test/zone": "b"}}, "90Gi")):
        shared.make("CSIStorageCapacity", name, NAMESPACE, storageClassName="late", capacity=size, nodeTopology=zone)
    return shared


@pytest.mark.parametrize(("code", "step", "text", "flags"), DRY, ids=[" ".join(row[3]) for row in DRY])
async def test_a_claim_that_is_not_there_can_be_tried(
    full: World, capsys: Capture, code: int, step: str, text: str, flags: list[str]
) -> None:
    found = await full.ask(capsys, *flags, "-ojson", "--request")
    shown: dict[str, Any] = found.json
    assert (found.code, shown["reason"]) == (code, step), shown
    assert text in shown["cause"]
    assert (shown["request"] is None) == (step in ("node", "topology", "class", "claim"))
    assert "a claim named explain" in json.dumps(shown["assumed"])
    assert full.objects.find("PersistentVolumeClaim", "explain", NAMESPACE) is None
