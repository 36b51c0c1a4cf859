"""The race for claims in a life of the work, where a provisioner runs on every node (node-deployment.md)."""

import random
from collections.abc import Callable

from csi_provisioner.model.kubernetes import PersistentVolumeClaim, StorageClass
from csi_provisioner.nodes import race
from csi_provisioner.nodes.claiming import Delays
from csi_provisioner.nodes.fitting import Fitting
from csi_provisioner.nodes.local import LocalNode
from csi_provisioner.nodes.race import Race
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.provision.gather import Gatherer
from csi_provisioner.provision.placement import ClusterPlacement
from csi_provisioner.work.backoff import Backoff
from csi_provisioner.work.exclusive import Exclusive
from csi_provisioner.work.runner import Loop

from .caches import Stores
from .parts import Parts


class Ownership:
    """The race and its loop; `exclusive` is that of the claims, `won` has a claim provisioned.

    `gatherer` and `placement` are the race's own: what it looks at is not remembered for provisioning.
    """

    def __init__(
        self,
        parts: Parts,
        local: LocalNode,
        facts: DriverFacts,
        kept: Stores,
        cluster: ClusterTopology | None,
        placement: ClusterPlacement | None,
        gatherer: Gatherer,
        *,
        exclusive: Exclusive,
        won: Callable[[str], None],
    ) -> None:
        retries, settings = parts.settings.retries, parts.settings.nodes
        self._race = Race(
            local.name,
            settings,
            kept.claims,
            kept.storage_classes,
            parts.kube,
            facts,
            fitting=Fitting(local.name, cluster, parts.driver, facts, parts.provisioning, gatherer, placement),
            delays=Delays(settings, random.random),
            events=parts.events,
            wake=lambda uid, after: self.loop.wake(uid, after),
            won=won,
        )
        self.loop = Loop(
            race.QUEUE,
            self._race.reconcile,
            workers=retries.workers,
            backoff=Backoff(retries.start, retries.maximum),
            exclusive=exclusive,
            metrics=parts.metrics.queue(race.QUEUE),
            about=lambda uid: {"PVC": kept.claims.by_uid(uid) or uid},
        )
        kept.claims.subscribe(self._race.saw_claim)

    def owns(self, claim: PersistentVolumeClaim, storage_class: StorageClass | None) -> bool:
        return self._race.owns(claim, storage_class)
