"""Each kind of broken claim: the cause comes first, with what helps, and the exit code says whose turn it is."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from csi_provisioner.logs import log
from tests import canary
from tests.embedded import VIRTUAL
from tests.explain.world import DRIVER, LAME, NAMESPACE, SECRET, World, worlds
from tests.journeys.objects import from_claim, from_snapshot

OTHERS, REFUSED = 3, 4
LEASE = "--leader-election-namespace=default"
FAR = {"dataSourceRef": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s",
                         "namespace": "kube-system"}}  # fmt: skip
Setup = Callable[[World, str], object]


@pytest.fixture(scope="module")
def anyio_backend() -> object:
    return VIRTUAL


@pytest.fixture(scope="module")
async def shared(anyio_backend: object, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    log.quiet = True
    async with worlds(tmp_path_factory.mktemp("world")) as world:
        world.storage_class()
        world.storage_class("late", late=True)
        world.storage_class("other", "other.acme.test")
        world.storage_class("lame", LAME)
        world.storage_class("local", "kubernetes.io/no-provisioner", late=True)
        zone = [{"matchLabelExpressions": [{"key": "acme.test/zone", "values": ["a"]}]}]
        world.storage_class("zone-a", late=True, allowedTopologies=zone)
        for name, text in (("gone", "gone"), ("wrong", "${pvc.labels['x']}"), ("login", "login")):
            parameters = {f"{SECRET}-name": text, f"{SECRET}-namespace": NAMESPACE}
            world.storage_class(f"secret-{name}", parameters=parameters)
        world.storage_class("nonsense", parameters={"csi.storage.k8s.io/nonsense": "x"})
        world.secret("login")
        world.node("node-a", ["zone"], zone="a")
        world.node("node-b", ["zone"], zone="b")
        world.node("bare", ["zone"])
        world.node("without", None, zone="a")
        yield world
    log.quiet = False


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    canary.arm()  # the Secret is older than the test
    yield shared
    shared.server.faults.clear()


def being_deleted(world: World, kind: str, name: str) -> None:
    world.objects.delete(kind, name, NAMESPACE)


def deleted_snapshot(world: World, name: str) -> None:
    world.snapshot(f"s-{name}", finalizers=["acme.test/holds"])
    being_deleted(world, "VolumeSnapshot", f"s-{name}")
    world.claim(name, **from_snapshot(f"s-{name}"))


def of_snapshot(**how: Any) -> Setup:
    return lambda world, name: (world.snapshot(f"s-{name}", **how), world.claim(name, **from_snapshot(f"s-{name}")))


def deleted_source(world: World, name: str) -> None:
    world.claim(f"s-{name}", finalizers=["acme.test/holds"], status={"phase": "Bound"}, volumeName="pv-s")
    being_deleted(world, "PersistentVolumeClaim", f"s-{name}")
    world.claim(name, **from_claim(f"s-{name}"))


def short_of_room(world: World, name: str) -> None:
    world.claim(name, "late", of="", size="50Gi")
    world.pod(f"pod-{name}", name, message="0/2 nodes are available: 2 node(s) did not have enough free storage")
    world.make("CSIStorageCapacity", "room", NAMESPACE, storageClassName="late", capacity="20Gi", nodeTopology={})


def told(message: str) -> Setup:
    return lambda world, name: world.event(name, world.claim(name), message)


def made(world: World, name: str) -> None:
    uid = world.claim(name)
    world.volume(f"pvc-{uid}", claim={"name": name, "namespace": NAMESPACE, "uid": uid})


def held(world: World, name: str) -> None:
    world.claim(name, finalizers=["kubernetes.io/pvc-protection"])
    world.pod(f"pod-{name}", name)
    being_deleted(world, "PersistentVolumeClaim", name)


def nobody_leads(world: World, name: str) -> None:
    world.claim(name)
    spec = {"holderIdentity": "", "leaseDurationSeconds": 15}
    world.make("Lease", "disk-acme-test", NAMESPACE, spec=spec)


def forbidden_secret(world: World, name: str) -> None:
    world.event(name, world.claim(name, "secret-login"), "cannot read the provisioner secret default/login: 403")
    world.deny("*", "Secret")


TABLE: list[tuple[str, int, str, str, str, Setup, list[str]]] = [
    ("class-missing", REFUSED, "class", "'nowhere' of claim default/class-missing does not exist", "create it",
     lambda w, n: w.claim(n, "nowhere", of=""), []),
    ("evil-class", REFUSED, "class", "StorageClass '../secrets' of claim", "create it",
     lambda w, n: w.objects.edit("PersistentVolumeClaim", w.claim(n) and n, NAMESPACE, change=lambda claim: claim[
         "metadata"]["annotations"].update({"volume.beta.kubernetes.io/storage-class": "../secrets"})), []),
    ("no-default", OTHERS, "class", "names no class, and no StorageClass is the default", "is-default-class=true",
     lambda w, n: w.claim(n, None, of=""), []),
    ("static", OTHERS, "class", 'class is "": it waits for a PersistentVolume', "make one",
     lambda w, n: w.claim(n, "", of=""), []),
    ("local", OTHERS, "class", "StorageClass local makes no volumes (kubernetes.io/no-provisioner)", "make one",
     lambda w, n: w.claim(n, "local", of=""), []),
    ("other-driver", OTHERS, "class", "is of provisioner other.acme.test", "provisioner of other.acme.test",
     lambda w, n: w.claim(n, "other", of="other.acme.test"), []),
    ("class-replaced", OTHERS, "class", "is now of provisioner 'other.acme.test'", "make the claim anew",
     lambda w, n: w.claim(n, "other"), []),
    ("replaced-by-ours", OTHERS, "class", "was made for provisioner old.acme.test", "make the claim anew",
     lambda w, n: w.claim(n, of="old.acme.test"), []),
    ("not-annotated", OTHERS, "claim", "no provisioner is named on the claim yet", "kube-controller-manager",
     lambda w, n: w.claim(n, of=""), []),
    ("no-pod", OTHERS, "node", "binds late, and no pod uses the claim", "start a pod",
     lambda w, n: w.claim(n, "late", of=""), []),
    ("unschedulable", OTHERS, "node", "pod p-unsch cannot be scheduled: 0/2 nodes", "make a node fit",
     lambda w, n: (w.claim(n, "late", of=""), w.pod("p-unsch", n, message="0/2 nodes are available")), []),
    ("bypassed", OTHERS, "node", "pod p-by names its node itself", "nodeSelector",
     lambda w, n: (w.claim(n, "late", of=""), w.pod("p-by", n, node="node-a")), []),
    ("no-room", OTHERS, "capacity", "has room for 50Gi: the largest volume is 20Gi", "add storage", short_of_room, []),
    ("node-gone", REFUSED, "topology", "failed to get selected CSINode node-z", "a node has to be selected again",
     lambda w, n: w.claim(n, "late", node="node-z"), []),
    ("no-entry", REFUSED, "topology", "its CSINode does not list driver", "node plugin runs",
     lambda w, n: w.claim(n, "late", node="without"), []),
    ("no-label", REFUSED, "topology", "node bare lacks the label acme.test/zone", "restart the driver's node plugin",
     lambda w, n: w.claim(n, "late", node="bare"), []),
    ("not-allowed", REFUSED, "topology", "node node-b (acme.test/zone=b) is in none", "let the pod run only on nodes",
     lambda w, n: w.claim(n, "zone-a", node="node-b"), []),
    ("no-snapshot", REFUSED, "source", "VolumeSnapshot default/none cannot be the source", "create it",
     lambda w, n: w.claim(n, **from_snapshot("none")), []),
    ("not-ready", REFUSED, "source", "the snapshot is not ready to use yet", "snapshot controller",
     of_snapshot(ready=False), []),
    ("deleted-snapshot", REFUSED, "source", "the snapshot is being deleted", "another source", deleted_snapshot, []),
    ("foreign-snapshot", REFUSED, "source", "is of driver other.acme.test", "class of the source's driver",
     of_snapshot(driver="other.acme.test"), []),
    ("larger-snapshot", REFUSED, "source", "less than the 8589934592 bytes of the snapshot", "at least that size",
     of_snapshot(size="8Gi"), []),
    ("no-source", REFUSED, "source", "there is no such claim", "create it",
     lambda w, n: w.claim(n, **from_claim("none")), []),
    ("unbound-source", REFUSED, "source", "the source claim is Pending, not Bound", "bound first",
     lambda w, n: (w.claim("s-unbound", status={"phase": "Pending"}), w.claim(n, **from_claim("s-unbound"))), []),
    ("deleted-source", REFUSED, "source", "the source claim is being deleted", "another source", deleted_source, []),
    ("no-grant", REFUSED, "source", "no ReferenceGrant in namespace kube-system allows it", "ask the owner",
     lambda w, n: w.claim(n, **FAR), ["--feature-gates=CrossNamespaceVolumeDataSource=true"]),
    ("populator", OTHERS, "source", "data source of kind 'Well'", "populator",
     lambda w, n: w.claim(n, dataSourceRef={"apiGroup": "acme.test", "kind": "Well", "name": "deep"}), []),
    ("selector", REFUSED, "claim", "has a selector", "make the claim anew",
     lambda w, n: w.claim(n, selector={"matchLabels": {"a": "b"}}), []),
    ("no-secret", REFUSED, "secret", "cannot read the provisioner secret default/gone", "create that secret",
     lambda w, n: w.claim(n, "secret-gone"), []),
    ("forbidden-secret", REFUSED, "secret", "cannot read the provisioner secret default/login: 403",
     "account that may see", forbidden_secret, []),
    ("template", REFUSED, "secret", "nothing known as pvc.labels['x']", "correct the StorageClass",
     lambda w, n: w.claim(n, "secret-wrong"), []),
    ("reserved", REFUSED, "parameters", "csi.storage.k8s.io/nonsense", "correct or remove them",
     lambda w, n: w.claim(n, "nonsense"), []),
    ("no-attributes", REFUSED, "attributes", "cannot read VolumeAttributesClass gold", "create it",
     lambda w, n: w.claim(n, volumeAttributesClassName="gold"), []),
    ("infeasible", REFUSED, "call", "code = InvalidArgument desc = no such pool", "correct the class or the claim",
     told("driver disk.acme.test could not create the volume: CreateVolume: rpc error: code = InvalidArgument desc = "
          "no such pool (attempt 1; retries are slow after this: in 300 s)"), []),
    ("volume-forbidden", REFUSED, "right", "its PersistentVolume cannot be written", "create on persistentvolumes",
     told("the driver has made the volume, and its PersistentVolume cannot be written: no (403 Forbidden)"), []),
    ("nobody-leads", OTHERS, "leader", "nobody holds Lease default/disk-acme-test", "does a pod of the provisioner run",
     nobody_leads, [LEASE]),
    ("made", OTHERS, "bind", "is written (Available), and the claim is not bound to it yet", "kube-controller-manager",
     made, []),
    ("taken", OTHERS, "bind", "is that of claim default/else", "delete that PersistentVolume",
     lambda w, n: w.volume(f"pvc-{w.claim(n)}", claim={"name": "else", "namespace": NAMESPACE, "uid": "u"}), []),
    ("lost", OTHERS, "bind", "names PersistentVolume pv-gone, which does not exist", "restore the PersistentVolume",
     lambda w, n: w.claim(n, volumeName="pv-gone"), []),
    ("deleted", OTHERS, "claim", "kept by kubernetes.io/pvc-protection; it is used by pod pod-deleted", "end pod",
     held, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code", "step", "cause", "fix", "setup", "flags"), TABLE, ids=[row[0] for row in TABLE]
)
async def test_the_cause_comes_first(
    world: World, capsys: pytest.CaptureFixture[str], name: str, code: int, step: str, cause: str, fix: str,
    setup: Setup, flags: list[str],
) -> None:  # fmt: skip
    setup(world, name)
    found = await world.ask(capsys, name, *flags)
    assert found.code == code, found
    first, *_ = found.out.split("\nFix: ")
    assert first.startswith(f"default/{name} "), first
    assert cause in first.replace("\n", " ")
    assert f"({step}): " in first.replace("\n", " ")
    assert fix in found.out.partition("\nFix: ")[2].partition("\n\n")[0].replace("\n", " ")
    assert bool(fix) == ("\nFix: " in found.out)
    assert max(map(len, found.out.splitlines())) <= 100


async def test_a_driver_that_makes_no_volumes_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.claim("no-capability", "lame", of=LAME)
    found = await world.ask(capsys, "no-capability", "-ojson", driver=LAME)
    assert (found.code, found.json["reason"]) == (REFUSED, "driver")
    assert "does not report the controller capability CREATE_DELETE_VOLUME" in found.json["cause"]
    assert found.json["fix"]


async def test_a_default_class_that_came_later_is_named(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.claim("default-comes", None, of="")
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    world.make("StorageClass", "default", provisioner=DRIVER, metadata={"annotations": annotations})
    found = await world.ask(capsys, "default-comes", "-ojson")
    world.objects.delete("StorageClass", "default")
    assert (found.code, found.json["reason"]) == (OTHERS, "class")
    assert "StorageClass default is the default: it will get that" in found.json["cause"]
