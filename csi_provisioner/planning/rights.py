"""Which rights this process needs with its flags and its driver, and what does not work without each (process.md 11).

What nothing works without is `needed`: to follow what is watched, to write PersistentVolumes and, where they are on, to
hold the lease and to publish capacity. Published roles lack one or the other of the rest, and must do.
"""

from collections.abc import Iterator

import msgspec

from csi_provisioner.planning import deletion
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.settings import Settings

STORAGE, SNAPSHOTS, LEASES = "storage.k8s.io", "snapshot.storage.k8s.io", "coordination.k8s.io"


class Right(msgspec.Struct, frozen=True):
    """One verb on one kind: in all namespaces, in one, or on one object."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""
    needed: bool = True
    without: str = ""
    """What does not work without it, for those that are not needed."""

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return " ".join(
            part
            for part in (
                self.verb,
                kind,
                self.name,
                f"in namespace {self.namespace}" if self.namespace else "",
            )
            if part
        )

    @property
    def rule(self) -> str:
        """As it stands in a role."""
        names = f", resourceNames: [{self.name}]" if self.name else ""
        return f'{{apiGroups: ["{self.group}"], resources: [{self.resource}], verbs: [{self.verb}]{names}}}'


SAVE = Right("create", "persistentvolumes")


def wanted(settings: Settings, facts: DriverFacts, lease: str) -> Iterator[Right]:
    """`lease` is the name of the leader's lease, "" while the driver's name is not known."""
    yield from _watched(settings, facts)
    yield SAVE
    yield _optional("patch", "persistentvolumes", without="our finalizer stays on volumes that people have deleted")
    yield _optional("delete", "persistentvolumes", without="volumes are deleted, and their PersistentVolumes stay")
    yield _optional("get", "persistentvolumes", without="no clones, and no volume of an earlier leader is recovered")
    without = "no other node is chosen after a failure; no clones"
    yield _optional("update", "persistentvolumeclaims", without=without)
    without += "; no volume of an earlier leader is recovered"
    yield _optional("get", "persistentvolumeclaims", without=without)
    yield _optional("create", "events", without="people do not see on their claims what happens")
    yield _optional("patch", "events", without="repeats of an event are not counted")
    if settings.provisioning.volume_attributes_class:
        without = "claims with a VolumeAttributesClass fail"
        yield _optional("get", "volumeattributesclasses", STORAGE, without=without)
    if "CREATE_DELETE_SNAPSHOT" in facts.controller:
        yield _optional("get", "volumesnapshots", SNAPSHOTS, without="claims from snapshots fail")
        yield _optional("get", "volumesnapshotcontents", SNAPSHOTS, without="claims from snapshots fail")
        without = "a snapshot may be deleted while a claim is made from it"
        yield _optional("update", "volumesnapshots", SNAPSHOTS, without=without)
        without = "our finalizer stays on snapshots that an earlier process has left"
        yield _optional("list", "volumesnapshots", SNAPSHOTS, without=without)
    yield from _election(settings, lease)
    yield from _journal(settings)
    yield from _capacity(settings)


def _watched(settings: Settings, facts: DriverFacts) -> Iterator[Right]:
    """process.md 5.3."""
    kinds = [("persistentvolumeclaims", ""), ("persistentvolumes", ""), ("storageclasses", STORAGE)]
    if deletion.watches_attachments(facts):
        kinds.append(("volumeattachments", STORAGE))
    if (facts.topology or settings.capacity.enabled) and not settings.nodes.enabled:
        kinds += [("nodes", ""), ("csinodes", STORAGE)]
    if settings.gates.cross_namespace:
        kinds.append(("referencegrants", "gateway.networking.k8s.io"))
    for resource, group in kinds:
        for verb in ("list", "watch"):
            yield Right(verb, resource, group)


def _election(settings: Settings, lease: str) -> Iterator[Right]:
    if not settings.election.enabled:
        return
    namespace = settings.election.namespace
    yield Right("create", "leases", LEASES, namespace)  # no name: the server cannot know it yet
    if not lease:
        return
    for verb in ("get", "update"):
        yield Right(verb, "leases", LEASES, namespace, lease)
    without = "after a leader has stopped, another one leads only after up to eleven seconds"
    yield _optional("watch", "leases", LEASES, namespace, lease, without=without)


def _journal(settings: Settings) -> Iterator[Right]:
    wanted, namespace = settings.provisioning.volume_journal, settings.election.own_namespace
    if wanted == "off" or (wanted == "auto" and not namespace):
        return
    without = "no volume journal: a volume may be lost when this process is killed"
    # With an election `create` is asked for already.
    for verb in ("get", "update") if settings.election.enabled else ("get", "create", "update"):
        yield Right(verb, "leases", LEASES, namespace or "default", needed=wanted == "on", without=without)


def _capacity(settings: Settings) -> Iterator[Right]:
    capacity = settings.capacity
    if not capacity.enabled:
        return
    for verb in ("list", "watch", "create", "patch", "delete"):
        yield Right(verb, "csistoragecapacities", STORAGE, capacity.namespace)
    if capacity.ownerref_level >= 0:
        yield Right("get", "pods", "", capacity.namespace)
    if capacity.ownerref_level >= 2:
        yield Right("get", "replicasets", "apps", capacity.namespace)


def _optional(verb: str, resource: str, group: str = "", namespace: str = "", name: str = "", *, without: str) -> Right:
    return Right(verb, resource, group, namespace, name, needed=False, without=without)
