"""What the volume controller and its protection controllers do for claims and volumes, on the objects themselves.

A claim of an external provisioner's class is annotated (a late binding one once it has a node), bound to the volume
made for it or to a free one that fits, and its phase told; a volume whose claim is gone is released; the protection
finalizers go when nothing uses the object any more. Level-triggered: changes only mark keys, and `settle` works them
off from the present state. Pods get their node in `scheduler`. In-tree migration and resizing are not played.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator

import trio

from sandbox.api.errors import ApiError, Object
from sandbox.api.kinds import Kind
from sandbox.api.objects import Objects
from sandbox.api.quantities import parse
from sandbox.api.scheduler import Scheduler, claims_of
from sandbox.api.storage import Change, Key
from sandbox.api.validation import PV_PROTECTION, PVC_PROTECTION

_log = logging.getLogger(__name__)
PVC, PV = "PersistentVolumeClaim", "PersistentVolume"
PROVISIONER_KEYS = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")
SELECTED_NODE = "volume.kubernetes.io/selected-node"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
_CLASS = "volume.beta.kubernetes.io/storage-class"
_NO_PROVISIONER = "kubernetes.io/no-provisioner"


def class_of(obj: Object) -> str:
    annotations = obj["metadata"].get("annotations") or {}
    return str(annotations.get(_CLASS, obj["spec"].get("storageClassName") or ""))


def _key(obj: Object) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _claim_of(volume: Object) -> Key | None:
    reference = volume["spec"].get("claimRef")
    return (reference.get("namespace", ""), reference.get("name", "")) if reference else None


class Binder:
    """The controller. `run` serves; tests that want no task call `settle` themselves after `start`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._scheduler = Scheduler(objects)
        self._dirty: dict[tuple[str, Key], None] = {}
        self._changed = trio.Event()
        self._unbound: set[Key] = set()
        self._free: set[str] = set()  # volumes without a claimRef
        self._made_for: defaultdict[Key, set[str]] = defaultdict(set)  # claim -> volumes whose claimRef names it
        self._named_by: defaultdict[str, set[Key]] = defaultdict(set)  # volume -> claims whose volumeName it is
        self._used_by: defaultdict[Key, set[Key]] = defaultdict(set)  # claim -> pods
        self._syncs: dict[str, Callable[[Key], None]] = {
            PVC: self._sync_claim,
            PV: self._sync_volume,
            "Pod": self._scheduler.sync,
        }

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        stop = self.start()
        task_status.started()
        try:
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                self.settle()
        finally:
            stop()

    def start(self) -> Callable[[], None]:
        """Take in the present objects and listen from now on; returns what ends that."""
        storage = self._objects.storage
        for name in (PV, PVC, "Pod"):
            kind = self._objects.kind(name)
            for version in storage.of(kind).objects.values():
                self._note(kind, Change(version.number, None, version))
        return storage.listen(self._note)

    def settle(self) -> None:
        """Work until nothing is left to do."""
        while self._dirty:
            # A dict as an ordered set: the oldest mark first, and each key once.
            name, key = next(iter(self._dirty))
            del self._dirty[name, key]
            try:
                self._syncs[name](key)
            except ApiError:
                # an object the server itself would refuse to change: the next change brings it back here
                _log.exception("the sandbox binder could not go on with %s %s", name, "/".join(key))

    def _mark(self, name: str, key: Key) -> None:
        self._dirty[name, key] = None
        self._changed.set()

    def _note(self, kind: Kind, change: Change) -> None:
        """A change: keep the indexes true and mark whatever it concerns."""
        old = change.before.obj if change.before else None
        now = None if change.deleted else change.now.obj
        if kind.name == PVC:
            self._note_claim(change.now.key, old, now)
        elif kind.name == PV:
            self._note_volume(change.now.key, old, now)
        elif kind.name == "Pod":
            for obj, add in ((old, False), (now, True)):
                for claim in claims_of(obj) if obj else ():
                    (self._used_by[claim].add if add else self._used_by[claim].discard)(change.now.key)
                    self._mark(PVC, claim)
            self._mark("Pod", change.now.key)
        elif kind.name == "StorageClass":
            # Any of them may have waited for this class.
            for claim in self._unbound:
                self._mark(PVC, claim)
        elif kind.name == "Node":
            # A new node may be the first that fits.
            for pod in self._scheduler.waiting:
                self._mark("Pod", pod)

    def _note_claim(self, key: Key, old: Object | None, now: Object | None) -> None:
        self._unbound.discard(key)
        for claim, add in ((old, False), (now, True)):
            volume = claim["spec"].get("volumeName") if claim else None
            if volume:
                (self._named_by[volume].add if add else self._named_by[volume].discard)(key)
                self._mark(PV, ("", volume))
            elif claim and add:
                self._unbound.add(key)
        self._mark(PVC, key)
        for volume in self._made_for.get(key, ()):
            self._mark(PV, ("", volume))
        for pod in self._used_by.get(key, ()):
            self._mark("Pod", pod)

    def _note_volume(self, key: Key, old: Object | None, now: Object | None) -> None:
        name = key[1]
        was_free = name in self._free
        self._free.discard(name)
        for volume, add in ((old, False), (now, True)):
            claim = _claim_of(volume) if volume else None
            if claim is not None:
                (self._made_for[claim].add if add else self._made_for[claim].discard)(name)
                self._mark(PVC, claim)
        if now is not None and _claim_of(now) is None:
            self._free.add(name)
            for claim in () if was_free else self._unbound:
                self._mark(PVC, claim)
        for claim in self._named_by.get(name, ()):
            self._mark(PVC, claim)
        self._mark(PV, key)

    # claims

    def _sync_claim(self, key: Key) -> None:
        claim = self._objects.find(PVC, key[1], key[0])
        if claim is None:
            return
        if claim["metadata"].get("deletionTimestamp") and not self._in_use(key) and self._unprotect(PVC, claim):
            return
        if claim["spec"].get("volumeName"):
            self._follow(claim)
        else:
            self._seek(claim)

    def _in_use(self, key: Key) -> bool:
        """Whether a pod that has a node and has not ended uses the claim; others will not start any more."""
        for namespace, name in self._used_by.get(key, ()):
            pod = self._objects.find("Pod", name, namespace)
            if pod and pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed"):
                return True
        return False

    def _unprotect(self, kind: str, obj: Object) -> bool:
        """Drop our protection finalizer; True if it was there."""
        finalizer = PVC_PROTECTION if kind == PVC else PV_PROTECTION
        if finalizer not in (obj["metadata"].get("finalizers") or ()):
            return False
        namespace, name = _key(obj)
        self._objects.edit(kind, name, namespace, change=lambda new: new["metadata"]["finalizers"].remove(finalizer))
        return True

    def _seek(self, claim: Object) -> None:
        """A claim without a volume: take one that is there, or ask for one."""
        class_ = self._objects.find("StorageClass", class_of(claim))
        late = bool(class_) and (class_ or {}).get("volumeBindingMode") == "WaitForFirstConsumer"
        volume = next(self._made(claim), None) or (None if late else self._best_free(claim))
        if volume is not None:
            self._bind(claim, volume)
            return
        provisioner = str((class_ or {}).get("provisioner", _NO_PROVISIONER))
        annotations = claim["metadata"].get("annotations") or {}
        if provisioner == _NO_PROVISIONER or (late and not annotations.get(SELECTED_NODE)):
            return
        # Asked once: writing the same annotations again would wake every watch.
        if any(annotations.get(name) != provisioner for name in PROVISIONER_KEYS):
            self._annotate(claim, dict.fromkeys(PROVISIONER_KEYS, provisioner))

    def _annotate(self, claim: Object, annotations: dict[str, str]) -> None:
        def change(new: Object) -> None:
            new["metadata"].setdefault("annotations", {}).update(annotations)

        self._edit(PVC, claim, change)

    def _edit(self, kind: str, obj: Object, change: Callable[[Object], None], *, status: bool = False) -> Object:
        namespace, name = _key(obj)
        return self._objects.edit(kind, name, namespace, change=change, status=status)

    def _made(self, claim: Object) -> Iterator[Object]:
        """The volumes that say they are for this claim."""
        for name in sorted(self._made_for.get(_key(claim), ())):
            volume = self._objects.find(PV, name)
            if volume is None or volume["metadata"].get("deletionTimestamp"):
                continue
            uid = volume["spec"]["claimRef"].get("uid")
            # A claim of the same name may be a new one; a volume reserved by name only fits whichever comes.
            if uid == claim["metadata"]["uid"] or (not uid and _fits(volume, claim)):
                yield volume

    def _best_free(self, claim: Object) -> Object | None:
        """The smallest free volume that fits, as the volume controller picks it."""
        volumes = (self._objects.find(PV, name) for name in self._free)
        fitting = [volume for volume in volumes if volume is not None and _fits(volume, claim)]
        return min(fitting, key=lambda volume: (_size(volume), volume["metadata"]["name"]), default=None)

    def _bind(self, claim: Object, volume: Object) -> None:
        """The four writes of a binding, in the volume controller's order; each only if it is still to be done."""
        reference = volume["spec"].get("claimRef")
        if not reference or not reference.get("uid"):
            volume = self._edit(PV, volume, lambda new: _refer(new, claim))
        self._phase(PV, volume, "Bound")

        def complete(new: Object) -> None:
            annotations = new["metadata"].setdefault("annotations", {})
            if not new["spec"].get("volumeName"):
                new["spec"]["volumeName"] = volume["metadata"]["name"]
                annotations[BOUND_BY_CONTROLLER] = "yes"
            annotations[BIND_COMPLETED] = "yes"

        claim = self._edit(PVC, claim, complete)
        self._phase(PVC, claim, "Bound", accessModes=volume["spec"]["accessModes"], capacity=volume["spec"]["capacity"])

    def _follow(self, claim: Object) -> None:
        """A claim that names its volume: finish the binding, or tell that it was lost."""
        volume = self._objects.find(PV, claim["spec"]["volumeName"])
        completed = BIND_COMPLETED in (claim["metadata"].get("annotations") or {})
        reference = (volume["spec"].get("claimRef") or {}) if volume else {}
        mine = _key(claim) == (reference.get("namespace"), reference.get("name"))
        if volume is None or (
            reference and not (mine and reference.get("uid") in (None, "", claim["metadata"]["uid"]))
        ):
            self._phase(PVC, claim, "Lost" if completed else "Pending")
        else:
            self._bind(claim, volume)

    def _phase(self, kind: str, obj: Object, phase: str, **more: object) -> None:
        status = obj.get("status") or {}
        if kind == PV:
            more = more | {"lastPhaseTransitionTime": self._objects.now()}
        wanted = {"phase": phase, **({} if status.get("phase") == phase else more)}
        if any(status.get(name) != value for name, value in wanted.items()):
            self._edit(kind, obj, lambda new: new.setdefault("status", {}).update(wanted), status=True)

    # volumes

    def _sync_volume(self, key: Key) -> None:
        volume = self._objects.find(PV, key[1])
        if volume is None:
            return
        phase = volume["status"].get("phase")
        if volume["metadata"].get("deletionTimestamp") and phase != "Bound" and self._unprotect(PV, volume):
            return
        reference = volume["spec"].get("claimRef")
        if not reference or not reference.get("uid"):
            self._phase(PV, volume, "Available")
            return
        claim = self._objects.find(PVC, reference.get("name", ""), reference.get("namespace", ""))
        if claim is not None and claim["metadata"]["uid"] == reference["uid"]:
            if claim["spec"].get("volumeName") in (None, "", key[1]):
                return  # binding is the claim's turn
            # A volume by hand that another claim of its name lost is kept; one made on demand is released.
            if not _made_on_demand(volume):
                return
        if phase not in ("Released", "Failed"):
            self._phase(PV, volume, "Released")


def _made_on_demand(volume: Object) -> bool:
    return "pv.kubernetes.io/provisioned-by" in (volume["metadata"].get("annotations") or {})


def _refer(volume: Object, claim: Object) -> None:
    if not volume["spec"].get("claimRef"):
        volume["metadata"].setdefault("annotations", {})[BOUND_BY_CONTROLLER] = "yes"
    namespace, name = _key(claim)
    reference = {"kind": PVC, "apiVersion": "v1", "namespace": namespace, "name": name}
    meta = claim["metadata"]
    volume["spec"]["claimRef"] = reference | {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}


def _size(volume: Object) -> object:
    return parse(volume["spec"]["capacity"]["storage"])[0]


def _fits(volume: Object, claim: Object) -> bool:
    want, have = claim["spec"], volume["spec"]
    labels = volume["metadata"].get("labels") or {}
    selector = want.get("selector") or {}
    return (
        not volume["metadata"].get("deletionTimestamp")
        and class_of(volume) == class_of(claim)
        and have["volumeMode"] == want["volumeMode"]
        and have.get("volumeAttributesClassName") == want.get("volumeAttributesClassName")
        and set(want["accessModes"]) <= set(have["accessModes"])
        and parse(have["capacity"]["storage"])[0] >= parse(want["resources"]["requests"]["storage"])[0]
        and not selector.get("matchExpressions")
        and all(labels.get(name) == value for name, value in (selector.get("matchLabels") or {}).items())
    )
