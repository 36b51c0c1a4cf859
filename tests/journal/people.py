"""Who else is in the world of `world.py`: users, controllers, administrators, others who lead; and what holds then."""

from functools import partial
from typing import Any

import trio

from csi_provisioner.kube.election import JOURNAL
from csi_provisioner.planning import entries
from csi_provisioner.provision.journal_leases import ENTRIES, TERM

from .clock import Clock, sleep
from .server import CLAIMS, CLASSES, LEASES, VOLUMES, Object
from .world import AGE, DRIVER, HOLD, NAMESPACE, History, Process, handle

LEAST, STEPS, STEP = 10, 130, 0.5
"""Of the time in which things go wrong; most histories are short, so that there are many."""
CALM, TROUBLED = 800.0, 20.0
"""Seconds in which they do not, at most: more than it takes to try a journal again that was switched off. And those in
which the driver is still busy or refuses."""


class Lived(History):
    async def run(self) -> None:
        self._began = trio.current_time()
        self._calm = False
        for name, policy in (("d", "Delete"), ("r", "Retain")):
            fields = {"provisioner": DRIVER, "reclaimPolicy": policy, "volumeBindingMode": "Immediate"}
            self.server.put(CLASSES, {"metadata": {"name": name}, **fields})
        self.server.on_change = self._saw
        async with trio.open_nursery() as self._later:
            await self._troubled()
            # The driver's own faults last a while longer: what was left is judged by then.
            self._calm, self.faults = True, self.lasting & {"err", "refuse"}
            self.note("world", "calm")
            began = trio.current_time()
            while trio.current_time() < began + CALM and not (self._is_quiet() and not self.faults):
                if trio.current_time() > began + TROUBLED:
                    self.faults = frozenset()
                await sleep(1.0)
                self._controllers()
                if not self.processes:
                    self._begin()
            self._judge()
            for process in self.processes:
                process.kill()
            self._later.cancel_scope.cancel()

    async def _troubled(self) -> None:
        self._claim()
        self._begin()
        for _ in range(LEAST + int((STEPS - LEAST) * self.chance.random() ** 3)):
            await sleep(STEP * 2 * self.chance.random())
            self._step()

    # ---- one step

    def _step(self) -> None:
        self._controllers()
        chance = self.chance
        if len(self.policies) < 12 and len(self._waiting()) < 3 and chance.random() < 0.4:
            self._claim()
        if len(self.processes) < 2 and self._spawned < 12 and chance.random() < 0.5:
            self._begin()
        for process in list(self.processes):
            waits = process.leads and bool(self._entries())
            if self.has("kill", 0.06 if waits and self.is_marked() else 0.01):
                self.note(process, "kill -9")
                process.kill()
            elif process.leads and self.has("stop", 0.06):
                self.note(process, "SIGTERM")
                process.stop.set()
        self._users()
        self._administrators()
        self._others()

    def _begin(self) -> None:
        self._spawned += 1
        process = Process(self, "twin" if "twins" in self.lasting else f"p{self._spawned}")
        self.processes.append(process)
        self._later.start_soon(process.run)

    def _claim(self, policy: str = "") -> str:
        policy = policy or self.chance.choice(["d", "d", "r"])
        uid = f"{policy}{len(self.policies)}"
        self.policies[uid] = {"d": "Delete", "r": "Retain"}[policy]
        meta = {
            "name": f"claim-{uid}",
            "namespace": NAMESPACE,
            "uid": uid,
            "annotations": {"volume.kubernetes.io/storage-provisioner": DRIVER},
        }
        spec = {
            "storageClassName": policy,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        self.server.put(CLAIMS, {"metadata": meta, "spec": spec, "status": {"phase": "Pending"}})
        self.note("user", "makes", uid)
        return uid

    def _saw(self, kind: str, name: str, obj: Object | None) -> None:
        if kind == VOLUMES and obj is not None and "status" not in obj:
            obj["status"] = {"phase": "Pending"}
            self.born[name] = trio.current_time()

    # ---- everybody else

    def _controllers(self) -> None:
        """The volume controller: binds, and releases what has lost its claim."""
        for name, pv in list(self.server.objects[VOLUMES].items()):
            reference = pv["spec"].get("claimRef")
            if reference is None or pv["metadata"].get("deletionTimestamp"):
                continue
            claim = self.server.get(CLAIMS, reference["name"])
            phase = pv["status"]["phase"]
            if claim is None and phase != "Released":
                self.server.edit(VOLUMES, name, lambda obj: obj["status"].update(phase="Released"))
            elif claim is not None and phase == "Pending" and not claim["spec"].get("volumeName"):
                self.server.edit(VOLUMES, name, lambda obj: obj["status"].update(phase="Bound"))
                self.server.edit(CLAIMS, reference["name"], partial(bound, name=name))
        for name, pv in list(self.server.objects[VOLUMES].items()):
            if pv["metadata"].get("deletionTimestamp") and not pv["metadata"].get("finalizers"):
                self.server.delete(VOLUMES, name, at_once=True)

    def _users(self) -> None:
        busy = self._entries()
        for name, claim in list(self.server.objects[CLAIMS].items()):
            under_way = f"pvc-{claim['metadata']['uid']}" in busy
            if self.has("delete", 0.25 if under_way else 0.03):
                self.note("user", "deletes", name)
                self.server.delete(CLAIMS, name)
            elif not claim["spec"].get("volumeName") and self.has("elsewhere", 0.05 if under_way else 0.01):
                self.note("user", "binds elsewhere", name)
                self.server.edit(CLAIMS, name, partial(bound, name="other"))

    def _administrators(self) -> None:
        for name, pv in list(self.server.objects[VOLUMES].items()):
            old = trio.current_time() - self.born.get(name, 0.0) >= AGE
            if not old or handle(pv) not in self.volumes or not self.has("admin", 0.3):
                continue
            policy, phase = pv["spec"]["persistentVolumeReclaimPolicy"], pv["status"]["phase"]
            if policy == "Retain" and phase == "Released":
                self.note("admin", "keeps the volume of", name)
                self.volumes[handle(pv)].kept = True
                self.server.delete(VOLUMES, name, at_once=True)
            elif policy == "Delete" and phase == "Bound":
                self.note("admin", "Retain for", name)
                self.server.edit(VOLUMES, name, lambda obj: obj["spec"].update(persistentVolumeReclaimPolicy="Retain"))
        named = {handle(pv) for pv in self.server.objects[VOLUMES].values()}
        for volume_id, volume in self.volumes.items():
            if volume.kept and volume_id not in named and self.has("admin", 0.3):
                self.note("admin", "adopts", volume_id)
                self._volume(f"adopted-{volume_id.replace('#', '-')}", volume_id, "Retain", None)

    def _others(self) -> None:
        for name, lease in list(self.server.objects[LEASES].items()):
            if name == DRIVER:
                continue
            if self.has("wipe", 0.02) and not _texts(lease):
                self.note("somebody", "deletes", name)
                self.server.delete(LEASES, name)
            elif self.has("touch", 0.03):
                self.server.edit(LEASES, name, self._labelled)
        if self.has("go", 0.05) and self._is_free():
            self._go()

    def _labelled(self, lease: Object) -> None:
        lease["metadata"].setdefault("labels", {})["touched"] = str(self.chance.random())

    def _is_free(self) -> bool:
        spec = (self.server.get(LEASES, DRIVER) or {}).get("spec") or {}
        return not spec.get("holderIdentity") or not any(
            one.leads and not one.dead for one in self.processes if one.identity == spec["holderIdentity"]
        )

    # ---- other leaders, whose terms take no time

    def _go(self) -> None:
        """One without a journal: it makes what is wanted and deletes what is released."""
        self.note("another program", "leads for a while")
        self._takes_lease(marked=False)
        for claim in list(self.server.objects[CLAIMS].values()):
            uid = claim["metadata"]["uid"]
            name = f"pvc-{uid}"
            if not claim["spec"].get("volumeName") and name not in self.server.objects[VOLUMES]:
                volume_id = next((i for i, volume in self.volumes.items() if volume.name == name), None)
                volume_id = volume_id or self._make(name)
                self._volume(name, volume_id, self.policies[uid], claim)
        for name, pv in list(self.server.objects[VOLUMES].items()):
            policy, phase = pv["spec"]["persistentVolumeReclaimPolicy"], pv["status"]["phase"]
            if (policy, phase) == ("Delete", "Released"):
                self.delete(None, handle(pv))
                self.server.delete(VOLUMES, name, at_once=True)

    def successor(self) -> None:
        """One of ours, seen from a process that sleeps: it has the lease and the journal, and has done all that is in
        it."""
        self.note("successor", "leads for a while")
        self._takes_lease(marked=True)
        for lease_name, lease in list(self.server.objects[LEASES].items()):
            if lease_name == DRIVER:
                continue
            for name in _texts(lease):
                self._recovered(name)
            self.server.edit(LEASES, lease_name, partial(_emptied, term=f"successor-{self.chance.random()}"))

    def _recovered(self, name: str) -> None:
        uid = name.removeprefix("pvc-")
        volume_id = next((i for i, volume in self.volumes.items() if volume.name == name), None)
        claim = self.server.get(CLAIMS, f"claim-{uid}")
        if name in self.server.objects[VOLUMES]:
            return
        if claim is not None and not claim["spec"].get("volumeName"):
            self._volume(name, volume_id or self._make(name), self.policies[uid], claim)
        elif volume_id is not None and self.policies[uid] == "Delete":
            self.delete(None, volume_id)
        elif volume_id is not None:
            self.told.add(name)

    def _make(self, name: str) -> str:
        self._made += 1
        volume_id = f"{name[:8]}#{self._made}"
        self.volumes[volume_id] = _volume(name)
        return volume_id

    def _takes_lease(self, *, marked: bool) -> None:
        lease = self.server.get(LEASES, DRIVER)
        if lease is None:
            return

        def change(obj: Object) -> None:
            number = (obj["spec"].get("leaseTransitions") or 0) + 1
            free = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": str(self.server.version)}
            obj["spec"].update(free, leaseTransitions=number, renewTime=str(self.server.version))
            if marked:
                obj["metadata"].setdefault("annotations", {})[JOURNAL] = str(number)

        self.server.edit(LEASES, DRIVER, change)

    def _volume(self, name: str, volume_id: str, policy: str, claim: Object | None) -> None:
        spec: Object = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": policy,
            "csi": {"driver": DRIVER, "volumeHandle": volume_id},
        }
        if claim is not None:
            meta = claim["metadata"]
            spec["claimRef"] = {key: meta[key] for key in ("name", "namespace", "uid")}
        annotations = {"pv.kubernetes.io/provisioned-by": DRIVER}
        phase = "Pending" if claim is not None else "Bound"
        made = {"metadata": {"name": name, "annotations": annotations}, "spec": spec, "status": {"phase": phase}}
        self.server.put(VOLUMES, made)
        self.born[name] = trio.current_time()

    # ---- the end

    def _entries(self) -> set[str]:
        return {name for key, lease in self.server.objects[LEASES].items() if key != DRIVER for name in _texts(lease)}

    def _waiting(self) -> list[str]:
        return [name for name, claim in self.server.objects[CLAIMS].items() if not claim["spec"].get("volumeName")]

    def _is_quiet(self) -> bool:
        """Somebody has led for longer than the hold, nothing is in progress, and no claim waits."""
        leader = next((one for one in self.processes if one.leads and one.journal is not None), None)
        taken = leader.journal.taken_at if leader is not None and leader.journal is not None else None
        settled = taken is not None and trio.current_time() > taken + HOLD + 2 and not self._entries()
        released = any(
            pv["status"]["phase"] == "Released" and pv["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
            for pv in self.server.objects[VOLUMES].values()
        )
        return settled and not released and not self._waiting()

    def _judge(self) -> None:
        left = self._entries()
        named = {handle(pv) for pv in self.server.objects[VOLUMES].values()}
        for volume_id, volume in self.volumes.items():
            if volume_id in named or volume.kept or volume.name in left:
                continue
            if volume.name not in self.told:
                self.bad("I1 leak", volume_id)
        for name in left:
            self.bad("I3 entry left", name)
        for name, pv in self.server.objects[VOLUMES].items():
            if handle(pv) not in self.volumes and pv["status"]["phase"] in ("Bound", "Pending"):
                self.bad("I2 data", f"PersistentVolume {name} without its volume")
        for name in self._waiting():
            self.bad("I8 stuck", name)


def live(seed: int, **fields: Any) -> Lived:
    """One history, the same for the same seed."""
    history = Lived(seed, **fields)
    trio.run(history.run, clock=Clock())
    return history


def _volume(name: str) -> Any:
    from .world import Volume

    return Volume(name)


def bound(claim: Object, name: str) -> None:
    claim["spec"]["volumeName"] = name
    claim["status"]["phase"] = "Bound"


def _texts(lease: Object) -> dict[str, bytes]:
    return entries.unpack((lease["metadata"].get("annotations") or {}).get(ENTRIES, "{}"))


def _emptied(lease: Object, term: str) -> None:
    lease["metadata"].setdefault("annotations", {}).update({ENTRIES: "{}", TERM: term})
