"""What the scheduler does for pods with claims: choose a node, write it on late binding claims, place the pod when
all is bound.

A node is chosen in name order among those that fit the pod's selector, the affinity of its bound volumes and the
topologies its classes allow; after a claim has lost its node (the provisioner asked for another one) the next node in
turn is taken. Resources, taints and storage capacity are not looked at.
"""

from collections.abc import Iterator

from sandbox.api.errors import Object
from sandbox.api.objects import Objects
from sandbox.api.storage import Key

_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_BIND_COMPLETED = "pv.kubernetes.io/bind-completed"


def claims_of(pod: Object) -> Iterator[Key]:
    """The keys of the claims a pod names."""
    for volume in pod["spec"].get("volumes") or ():
        source = volume.get("persistentVolumeClaim")
        if source:
            yield pod["metadata"]["namespace"], source["claimName"]


class Scheduler:
    """Places pods, one `sync` at a time. `waiting` holds the pods that have no node yet."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.waiting: set[Key] = set()
        self._tried: dict[Key, str] = {}  # pod -> the node it was given last

    def sync(self, key: Key) -> None:
        pod = self._objects.find("Pod", key[1], key[0])
        if pod is None or pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
            self.waiting.discard(key)
            self._tried.pop(key, None)
            return
        self.waiting.add(key)
        found = [self._objects.find("PersistentVolumeClaim", name, space) for space, name in claims_of(pod)]
        claims = [claim for claim in found if claim is not None and not claim["metadata"].get("deletionTimestamp")]
        # A claim that is missing or being deleted keeps the pod waiting, whatever the others do.
        if len(claims) < len(found):
            return
        pending = [claim for claim in claims if _BIND_COMPLETED not in _annotations(claim)]
        nodes = {_annotations(claim).get(_SELECTED_NODE) for claim in pending} - {None, ""}
        homeless = [claim for claim in pending if not _annotations(claim).get(_SELECTED_NODE)]
        if any(not self._is_late(claim) for claim in pending):
            return  # the volume controller's turn
        if homeless:
            # Claims of one pod must not go to different nodes: one that is chosen already decides.
            node = next(iter(nodes), None) or self._choose(key, pod, claims)
            for claim in homeless if node else ():
                self._give_node(claim, str(node))
        elif not pending:
            node = self._choose(key, pod, claims, again=True)
            if node:
                self._objects.edit("Pod", key[1], key[0], change=lambda new: new["spec"].update(nodeName=node))

    def _class(self, claim: Object) -> Object:
        return self._objects.find("StorageClass", claim["spec"].get("storageClassName") or "") or {}

    def _is_late(self, claim: Object) -> bool:
        return self._class(claim).get("volumeBindingMode") == "WaitForFirstConsumer"

    def _give_node(self, claim: Object, node: str) -> None:
        def change(new: Object) -> None:
            new["metadata"].setdefault("annotations", {})[_SELECTED_NODE] = node

        meta = claim["metadata"]
        self._objects.edit("PersistentVolumeClaim", meta["name"], meta["namespace"], change=change)

    def _choose(self, key: Key, pod: Object, claims: list[Object], *, again: bool = False) -> str | None:
        """A fitting node: the one after the last given, or (`again`) the last given itself if it still fits."""
        fitting = [node["metadata"]["name"] for node in self._objects.all("Node") if self._fits(node, pod, claims)]
        if not fitting:
            return None
        fitting.sort()
        last = self._tried.get(key, "")
        if again and last in fitting:
            return last
        node = next((name for name in fitting if name > last), fitting[0])
        self._tried[key] = str(node)
        return str(node)

    def _fits(self, node: Object, pod: Object, claims: list[Object]) -> bool:
        labels = {"kubernetes.io/hostname": node["metadata"]["name"], **(node["metadata"].get("labels") or {})}
        if (node.get("spec") or {}).get("unschedulable"):
            return False
        if any(labels.get(name) != value for name, value in (pod["spec"].get("nodeSelector") or {}).items()):
            return False
        return all(self._reaches(claim, labels) for claim in claims)

    def _reaches(self, claim: Object, labels: dict[str, str]) -> bool:
        """Whether a node with these labels can use the claim's volume: the one it has, or one of its class."""
        volume = self._objects.find("PersistentVolume", claim["spec"].get("volumeName") or "")
        if volume is not None:
            required = (volume["spec"].get("nodeAffinity") or {}).get("required")
            terms = [term.get("matchExpressions") or [] for term in (required or {}).get("nodeSelectorTerms") or ()]
            return not required or any(
                term and all(_matches(expression, labels) for expression in term) for term in terms
            )
        topologies = self._class(claim).get("allowedTopologies")
        return not topologies or any(
            all(labels.get(rule["key"]) in rule["values"] for rule in topology.get("matchLabelExpressions") or ())
            for topology in topologies
        )


def _annotations(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def _matches(expression: Object, labels: dict[str, str]) -> bool:
    """One requirement of a node selector term."""
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt":
            return key in labels and int(labels[key]) > int(values[0])
        case "Lt":
            return key in labels and int(labels[key]) < int(values[0])
        case _:
            return False
