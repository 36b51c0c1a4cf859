"""Recovery in a term of the leader: what it stands on, and what wakes it (design.md 6)."""

from collections.abc import Callable

from csi_provisioner.kube.caches import Caches
from csi_provisioner.model.kubernetes import PersistentVolume, PersistentVolumeClaim
from csi_provisioner.planning import gate, recovery
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.provision import recovery as provision
from csi_provisioner.provision.claims import Owner
from csi_provisioner.provision.recovery import Recovery, Rules
from csi_provisioner.provision.writer import JournalWriter
from csi_provisioner.work.runner import Loop
from csi_provisioner.work.workers import Workers

from .parts import Parts


def recovering(
    parts: Parts,
    journal: JournalWriter,
    facts: DriverFacts,
    caches: Caches,
    owner: Owner | None,
    workers: Workers,
    make: Callable[..., Loop],
) -> tuple[Recovery, Loop]:
    """`make` makes the loop, whose keys are volume names."""

    def wants(claim: PersistentVolumeClaim, name: str) -> bool:
        owned = owner is None or owner(claim, caches.storage_classes.get(gate.claim_class(claim)))
        return owned and recovery.is_wanted(claim, name, facts, parts.provisioning)

    rules = Rules(
        hold=journal.hold,
        elected=parts.settings.election.enabled,
        migratable=facts.in_tree_name is not None,
        wants=wants,
        under_way=parts.memory.is_under_way,
        clock=parts.kube.server_time,
    )
    found = Recovery(
        journal=journal,
        rules=rules,
        kube=parts.kube,
        driver=parts.driver,
        caches=caches,
        orphans=parts.orphans,
        events=parts.events,
        metrics=parts.metrics,
        workers=workers,
    )

    def claim_of(name: str) -> str:
        entry = journal.inherited.get(name)
        return name if entry is None else entry.claim.uid

    def saw_claim(_key: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        claim = new or old
        if claim is not None and journal.inherited:
            for name in found.names_of(claim.metadata.uid):
                loop.wake(name)

    def saw_volume(name: str, _old: PersistentVolume | None, _new: PersistentVolume | None) -> None:
        if name in journal.inherited:
            loop.wake(name)

    loop = make(
        provision.QUEUE, found.reconcile, workers=provision.WORKERS, id_of=claim_of, about=lambda name: {"PV": name}
    )
    caches.claims.subscribe(saw_claim)
    caches.volumes.subscribe(saw_volume)
    journal.found = loop.wake
    for name in journal.inherited:
        loop.wake(name)
    return found, loop
