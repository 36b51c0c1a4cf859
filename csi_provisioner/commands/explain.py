"""`csi-provisioner explain`: who has to act next for a claim, and why, step by step (design.md 8). Changes nothing.

Exit codes: 0 bound or worked on, 3 somebody else's turn, 4 refused as it stands, 5 no such claim, 1 could not ask,
2 the flags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from csi_provisioner import flags
from csi_provisioner.csi.driver import Driver
from csi_provisioner.fatal import Fatal
from csi_provisioner.flagset import BOOLEAN, QUANTITY, TEXT, Flag, Values
from csi_provisioner.kube import identity
from csi_provisioner.kube.client import KubeClient
from csi_provisioner.kube.reviews import is_allowed
from csi_provisioner.migration.registry import IN_TREE_NAMES
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import (
    ClaimSpec,
    CSINode,
    Lease,
    NodeName,
    ObjectMeta,
    PersistentVolumeClaim,
    ResourceRequirements,
    StorageClass,
)
from csi_provisioner.model.live import Live
from csi_provisioner.nodes import local
from csi_provisioner.planning import cluster, dns, gate, quantity, wellknown
from csi_provisioner.planning.cluster import ClusterTopology
from csi_provisioner.planning.explain import explain
from csi_provisioner.planning.explanation import Explanation, Facts, Read, Status, Unread
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.settings import ProvisioningSettings, Settings

from . import daemon, showing
from .asking import CONNECT, connected
from .entry import OUTPUT, CannotAskError, Command, say, show
from .lookup import Lookup

REQUEST = Flag("request", BOOLEAN, False, "Show the CreateVolumeRequest that would be sent, without secrets.")
NAMESPACE = Flag("namespace", TEXT, "", "Namespace of the claim; without one default, else where such a claim is.")
CLASS = Flag("class", TEXT, "", "With --size: would a claim of this StorageClass be given a volume? Makes none.")
SIZE = Flag("size", QUANTITY, "", "Size of that claim, such as 5Gi.")
NODE = Flag("node", TEXT, "", "Node that is selected for that claim.")
FLAGS = flags.FLAGS.extended("Explain", OUTPUT, REQUEST, NAMESPACE, CLASS, SIZE, NODE)
USAGE = (
    "Usage: csi-provisioner explain [NAMESPACE/]CLAIM [flags]\n"
    "       csi-provisioner explain --class NAME --size SIZE [--node NODE] [flags]\n\n"
    "Says who has to act next for a claim, and why. The other flags are those of the provisioner."
)
COMMAND = Command("explain", FLAGS, USAGE)
ABSENT = 5
CODES = {Status.WAITS: 3, Status.REFUSED: 4, Status.NOT_KNOWN: 1}
# What a driver of which nothing is known can do: a claim is to be judged by all the rest.
PLUGIN = frozenset({"CONTROLLER_SERVICE"})
CONTROLLER = frozenset({"CREATE_DELETE_VOLUME", "CREATE_DELETE_SNAPSHOT", "CLONE_VOLUME", "MODIFY_VOLUME"})
# No claim has it, and the name of its volume shows that.
NO_UID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    json: bool
    request: bool
    namespace: str
    anywhere: bool = False
    """Nobody named a namespace."""
    name: str = ""
    storage_class: str = ""
    size: str = ""
    node: str = ""
    addressed: bool = False
    """A flag names the driver's socket."""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    return COMMAND.run(arguments, environ, wanted, answer)


def wanted(values: Values) -> Wanted:
    dry, words = bool(values[CLASS] or values[SIZE] or values[NODE]), values.words
    if dry and (words or not (values[CLASS] and values[SIZE])):
        raise Fatal("without a claim it takes both --class and --size, and with a claim none of them", 2)
    if not dry and len(words) != 1:
        raise Fatal("it takes one [NAMESPACE/]CLAIM, or --class and --size", 2)
    namespace, _, name = words[0].rpartition("/") if words else ("", "", "")
    anywhere = not (values[NAMESPACE] or (words and "/" in words[0]))
    namespace = namespace or ("" if words and words[0].startswith("/") else values[NAMESPACE] or "default")
    if not (dns.is_label(namespace) and (dry or dns.is_subdomain(name))):
        raise Fatal(f"{namespace}/{name}: a claim is named NAMESPACE/CLAIM, or CLAIM", 2)
    if dry and not _is_size(values[SIZE]):
        raise Fatal(f"--size={values[SIZE]}: it must be a size above 0, such as 5Gi", 2)
    return Wanted(
        json=values[OUTPUT] == "json",
        request=values[REQUEST],
        namespace=namespace,
        anywhere=anywhere,
        name=name,
        storage_class=values[CLASS],
        size=values[SIZE],
        node=values[NODE],
        addressed="csi-address" in values,
    )


def _is_size(text: str) -> bool:
    try:
        return quantity.parse(text) > 0
    except Refusal:
        return False


async def answer(settings: Settings, wanted: Wanted) -> int:
    async with connected(settings, COMMAND.name) as (kube, driver):
        return await Explaining(settings, wanted, kube, driver).run()


@dataclass(eq=False)
class Explaining:
    settings: Settings
    wanted: Wanted
    kube: KubeClient
    driver: Driver
    assumed: list[str] = field(default_factory=list)
    """What the answer stands on that nobody said."""

    def __post_init__(self) -> None:
        where = self.settings.cluster
        self._in_pod = bool(where.service_host) and not (where.kubeconfig or where.master)
        self._lookup = Lookup(self.kube)

    async def run(self) -> int:
        dry = bool(self.wanted.storage_class)
        claim = self._dry() if dry else await self._claim()
        if claim is None:
            where = "in any namespace" if self.wanted.anywhere else f"in namespace {self.wanted.namespace}"
            say(f"There is no claim {self.wanted.name} {where}.")
            return ABSENT
        live = await daemon.ask(daemon.of(self.settings), claim.metadata.uid)
        # One that was found by these settings has the same account.
        self._lookup.same_account = self._in_pod or isinstance(live, Live)
        driver, asked, away = await self._driver(claim, live)
        if dry:
            claim.metadata.annotations = await self._annotated(driver)
        own = self.settings.nodes.node_name if self.settings.nodes.enabled else ""
        facts = Facts(
            claim=claim,
            driver=driver,
            settings=await self._provisioning(claim),
            asked=asked,
            away=away,
            dry=dry,
            own_node=NodeName(own) if own else None,
            takes_any=self.settings.nodes.immediate_binding,
            local=await self._local(driver) if own and asked and driver.topology and not away else None,
            same_account=self._lookup.same_account,
            may_save=await self._may_save(),
            capacity_namespace=self.settings.capacity.namespace,
            elects=self._elects(live),
            lease=self._lease(driver.name),
            live=live if isinstance(live, Live) else None,
            silent=live if isinstance(live, str) else "",
            now=self.kube.server_time(),
        )
        found = await self._explained(facts)
        decisive = found.decisive
        shown = showing.Shown(claim, driver.name, found, self.assumed, dry)
        show(shown.json(self.wanted.request) if self.wanted.json else shown.text(self.wanted.request))
        return CODES.get(decisive.status, 0)

    async def _provisioning(self, claim: PersistentVolumeClaim) -> ProvisioningSettings:
        if not claim.spec.volumeAttributesClassName:
            return self.settings.provisioning
        # Loads all of the daemon, which few claims are worth.
        from csi_provisioner.supervisor.clients import gated

        return await gated(self.settings, self.kube)

    async def _may_save(self) -> bool | None:
        return await is_allowed(self.kube, "create", "persistentvolumes") if self._lookup.same_account else None

    async def _explained(self, facts: Facts) -> Explanation:
        """Reads what is asked for, one thing after the other, until there is an answer."""
        known: dict[Read, object] = {}
        while True:
            found = explain(msgspec.structs.replace(facts, found=known))
            if found.needs is None:
                return found
            known[found.needs] = await self._lookup.read(found.needs)

    # ---- the claim

    async def _claim(self) -> PersistentVolumeClaim | None:
        found = await self._lookup.read(Read(PersistentVolumeClaim, self.wanted.name, self.wanted.namespace))
        if isinstance(found, Unread) and not found.missing:
            raise CannotAskError(f"claim {self.wanted.namespace}/{self.wanted.name} is not known: {found.why}")
        if isinstance(found, Unread) and self.wanted.anywhere:
            return await self._elsewhere()
        return None if isinstance(found, Unread) else found

    async def _elsewhere(self) -> PersistentVolumeClaim | None:
        named = f"metadata.name={self.wanted.name}"
        found: list[PersistentVolumeClaim] | Unread = await self._lookup.read(Read(PersistentVolumeClaim, fields=named))
        if isinstance(found, Unread):
            there = f"there is no claim {self.wanted.name} in namespace {self.wanted.namespace}"
            raise CannotAskError(f"{there}, and others are not known: {found.why}; name the claim's namespace")
        if not found:
            return None
        if len(found) > 1:
            keys = ", ".join(sorted(kubernetes.key(claim) for claim in found)[:5])
            raise Fatal(f"{len(found)} claims are named so: which one? {keys}", 2)
        return found[0]

    def _dry(self) -> PersistentVolumeClaim:
        """One that nobody makes. Its name decides where its volume would be among several places."""
        wanted = self.wanted
        self.assumed.append("a claim named explain with access mode ReadWriteOnce")
        return PersistentVolumeClaim(
            metadata=ObjectMeta(name="explain", namespace=wanted.namespace, uid=NO_UID),
            spec=ClaimSpec(
                accessModes=["ReadWriteOnce"],
                resources=ResourceRequirements(requests={"storage": wanted.size}),
                storageClassName=wanted.storage_class,
            ),
        )

    async def _annotated(self, driver: DriverFacts) -> dict[str, str]:
        """As the volume controller would hand the claim over."""
        found = await self._class(self.wanted.storage_class)
        theirs = found is not None and not driver.answers_to(found.provisioner)
        node = {wellknown.SELECTED_NODE: self.wanted.node} if self.wanted.node else {}
        return node | {wellknown.STORAGE_PROVISIONER: found.provisioner if found and theirs else driver.name}

    async def _class(self, name: str) -> StorageClass | None:
        found = await self._lookup.read(Read(StorageClass, name)) if name else None
        return found if isinstance(found, StorageClass) else None

    # ---- the driver

    async def _driver(self, claim: PersistentVolumeClaim, live: Live | str) -> tuple[DriverFacts, bool, str]:
        """What is known of it; whether that is its own word; why it does not answer."""
        if isinstance(live, Live) and live.driver.plugin:
            told = live.driver
            return self._facts(told.name, frozenset(told.plugin), frozenset(told.controller)), True, ""
        expected, away = self.settings.csi.expected_driver, ""
        # From outside, where nobody names a socket, there is none to be waited for.
        if self.wanted.addressed or self._in_pod:
            try:
                await self.driver.connect(CONNECT)
                name = await self.driver.identify()
                known = self._facts(name, *await self.driver.read_capabilities())
            except Fatal as error:
                # A socket that nobody named is not known to be the driver's.
                away = str(error) if self.wanted.addressed else ""
            else:
                if expected not in ("", name):
                    raise CannotAskError(f"the CSI driver is {name!r}, not {expected!r}")
                return known, True, ""
        name = expected
        if not name:
            name = await self._guessed(claim)
            self.assumed.append(f"the driver is {name or 'not known'} (--provisioner NAME says which)")
        topology = await self._has_topology(name)
        self.assumed.append(f"it {'has' if topology else 'has no'} topology, and can do all that a claim may need")
        plugin = PLUGIN | ({"VOLUME_ACCESSIBILITY_CONSTRAINTS"} if topology else set())
        return self._facts(name, plugin, CONTROLLER), False, away

    def _facts(self, name: str, plugin: frozenset[str], controller: frozenset[str]) -> DriverFacts:
        topology = self.settings.gates.topology and "VOLUME_ACCESSIBILITY_CONSTRAINTS" in plugin
        return DriverFacts(name, IN_TREE_NAMES.get(name), plugin, controller, topology)

    async def _guessed(self, claim: PersistentVolumeClaim) -> str:
        """That of the claim's class."""
        found = await self._class(gate.claim_class(claim))
        provisioner = found.provisioner if found is not None else gate.provisioner_of(claim) or ""
        drivers = {in_tree: driver for driver, in_tree in IN_TREE_NAMES.items()}
        return drivers.get(provisioner, provisioner)

    async def _has_topology(self, name: str) -> bool:
        """By what its node plugins have registered."""
        nodes = await self._lookup.read(Read(CSINode))
        if isinstance(nodes, Unread):
            return False
        entries = (cluster.entry_of(node, name) for node in nodes)
        return any(entry is not None and entry.topologyKeys for entry in entries)

    async def _local(self, driver: DriverFacts) -> ClusterTopology | None:
        name = NodeName(self.settings.nodes.node_name)
        try:
            info = await self.driver.node_get_info()
        except Fatal:
            return None
        return local.described(name, info).cluster(driver.name)

    # ---- who leads

    def _elects(self, live: Live | str) -> bool | None:
        if isinstance(live, Live):
            return live.leadership.sought
        return True if self.settings.election.enabled else None

    def _lease(self, driver: str) -> Read | None:
        election = self.settings.election
        namespace = election.namespace if election.enabled else election.own_namespace
        return Read(Lease, identity.sanitised(driver), namespace) if namespace and driver else None
