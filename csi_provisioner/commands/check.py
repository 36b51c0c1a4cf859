"""`csi-provisioner check`: has this process what its flags need? Rights, kinds, driver, classes, secrets (design.md 8).

Exit codes: 0 all that the flags need is there, 3 something is missing, 1 could not ask, 2 the flags.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from csi_provisioner import flags
from csi_provisioner.advice import kustomization
from csi_provisioner.csi.driver import Driver
from csi_provisioner.fatal import Fatal
from csi_provisioner.flagset import Values
from csi_provisioner.kube import identity
from csi_provisioner.kube.client import KubeClient, KubeError
from csi_provisioner.kube.reviews import is_allowed
from csi_provisioner.logs import escaped
from csi_provisioner.migration.registry import IN_TREE_NAMES
from csi_provisioner.model.kubernetes import GATEWAY, Secret, SecretReference, StorageClass
from csi_provisioner.planning import classes, templates
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.rights import Right, wanted
from csi_provisioner.settings import Settings

from .asking import CONNECT, connected
from .entry import OUTPUT, Command, say, say_json, show, table

OK, MISSING, OFF, NOT_KNOWN = "ok", "missing", "off", "not known"
FLAGS = flags.FLAGS.extended("Check", OUTPUT)
USAGE = (
    "Usage: csi-provisioner check [flags]\n\nSays what this process has of what its flags need. The other flags are "
    "those of the provisioner."
)
COMMAND = Command("check", FLAGS, USAGE)
FOUND = 3
# Kinds that the cluster need not have, the paths at which it may serve them, and what is off without them.
SERVED = (
    ("VolumeAttributesClass", "/apis/storage.k8s.io/v1", "claims with a VolumeAttributesClass fail"),
    ("VolumeSnapshot", "/apis/snapshot.storage.k8s.io/v1", "claims from snapshots fail"),
    ("ReferenceGrant", f"/apis/{GATEWAY}/v1 /apis/{GATEWAY}/v1beta1", "sources in other namespaces are refused"),
    ("CSIStorageCapacity", "/apis/storage.k8s.io/v1", "storage capacity cannot be published"),
)


class Line(msgspec.Struct, frozen=True):
    """`needed`: without it the flags ask for something that cannot work."""

    status: str
    about: str
    text: str = ""
    needed: bool = True


@dataclass(eq=False)
class Check:
    settings: Settings
    kube: KubeClient
    driver: Driver
    lines: list[Line] = field(default_factory=list)

    async def run(self) -> None:
        facts = await self._driver()
        lacking = await self._served()
        if "VolumeAttributesClass" in lacking and not self.settings.gates.volume_attributes_class_explicit:
            # As the daemon does: what is not served is off, and needs no right.
            provisioning = replace(self.settings.provisioning, volume_attributes_class=False)
            self.settings = replace(self.settings, provisioning=provisioning)
        # Which rights are needed follows from what the driver can do.
        if facts is not None:
            for right in wanted(self.settings, facts, identity.sanitised(facts.name)):
                await self._right(right)
        await self._classes(facts)

    def say(self, status: str, about: str, text: str = "", *, needed: bool = True) -> None:
        self.lines.append(Line(status, about, text, needed))

    # ---- the driver

    async def _driver(self) -> DriverFacts | None:
        """What is known of it; None where not even its name is."""
        address, expected = self.settings.csi.address, self.settings.csi.expected_driver
        try:
            await self.driver.connect(CONNECT)
            self.say(OK, f"socket {address}")
            name = await self.driver.identify()
            plugin, controller = await self.driver.read_capabilities()
        except Fatal as error:
            self.say(MISSING, f"driver at {address}", str(error))
            return DriverFacts(expected, IN_TREE_NAMES.get(expected)) if expected else None
        if expected not in ("", name):
            self.say(MISSING, f"driver {expected}", f"the driver at {address} is {name}; correct --provisioner")
        else:
            self.say(OK, f"driver {name}")
        topology = self.settings.gates.topology and "VOLUME_ACCESSIBILITY_CONSTRAINTS" in plugin
        facts = DriverFacts(name, IN_TREE_NAMES.get(name), plugin, controller, topology)
        self._capabilities(facts)
        return facts

    def _capabilities(self, facts: DriverFacts) -> None:
        def tell(has: bool, capability: str, without: str, *, needed: bool = False) -> None:
            self.say(OK if has else MISSING if needed else OFF, f"capability {capability}", "" if has else without)

        tell("CONTROLLER_SERVICE" in facts.plugin, "CONTROLLER_SERVICE", "every claim fails", needed=True)
        tell("CREATE_DELETE_VOLUME" in facts.controller, "CREATE_DELETE_VOLUME", "every claim fails", needed=True)
        if self.settings.capacity.enabled:
            has = "GET_CAPACITY" in facts.controller
            tell(has, "GET_CAPACITY", "--enable-capacity has nothing to publish", needed=True)
        for capability, without in (
            ("CREATE_DELETE_SNAPSHOT", "no claims from snapshots"),
            ("CLONE_VOLUME", "no clones"),
            ("MODIFY_VOLUME", "claims with a VolumeAttributesClass are refused"),
            ("LIST_VOLUMES", "`csi-provisioner orphans` knows only what was noted"),
        ):
            tell(capability in facts.controller, capability, without)
        constraints = "VOLUME_ACCESSIBILITY_CONSTRAINTS"
        tell(constraints in facts.plugin, constraints, "volumes have no topology")

    # ---- the cluster

    async def _served(self) -> set[str]:
        """Kinds that are not."""
        lacking = set()
        gates, capacity = self.settings.gates, self.settings.capacity
        needed = {"ReferenceGrant": gates.cross_namespace, "CSIStorageCapacity": capacity.enabled}
        for kind, paths, without in SERVED:
            if needed.get(kind) is False:
                continue
            answers = {await self._is_served(kind, path) for path in paths.split()}
            served = True if True in answers else None if None in answers else False
            missing = MISSING if kind in needed else OFF
            lacking |= {kind} if served is False else set()
            self.say({True: OK, False: missing, None: NOT_KNOWN}[served], f"kind {kind}", "" if served else without)
        return lacking

    async def _is_served(self, kind: str, path: str) -> bool | None:
        try:
            return kind in await self.kube.kinds(path)
        except KubeError as error:
            # Nobody answers, or does not know us: nothing else would be answered either.
            if error.code in (0, 401):
                raise
            # A group that is not served has no path at all.
            return False if error.code == 404 else None

    async def _right(self, right: Right) -> None:
        allowed = await is_allowed(self.kube, right.verb, right.resource, right.group, right.namespace, right.name)
        if allowed is None:
            self.say(NOT_KNOWN, f"right to {right}", "the API server does not say (SelfSubjectAccessReview)")
        elif allowed:
            self.say(OK, f"right to {right}")
        else:
            folder = kustomization(right.group, right.resource, right.verb)
            add = f"add {right.rule}" + (f" (kustomize/{folder} has it)" if folder else "")
            parts = [part for part in (right.without, add) if part]
            self.say(MISSING, f"right to {right}", "; ".join(parts), needed=right.needed)

    # ---- classes and their secrets

    async def _classes(self, facts: DriverFacts | None) -> None:
        if facts is None:
            self.say(NOT_KNOWN, "classes", "whose they are: no driver answers, and --provisioner names none")
            return
        found = 0
        async for storage_class in self._all_classes():
            if facts.answers_to(storage_class.provisioner):
                found += 1
                await self._class(classes.read(storage_class, facts), facts)
        if not found:
            self.say(OFF, "classes", f"no StorageClass names driver {facts.name}")

    async def _all_classes(self) -> AsyncIterator[StorageClass]:
        token = None
        while True:
            try:
                page = await self.kube.list_page(StorageClass, continue_token=token)
            except KubeError as error:
                if not error.forbidden:
                    raise
                self.say(NOT_KNOWN, "classes", str(error))
                return
            for storage_class in page.items:
                yield storage_class
            if not (token := page.continue_token):
                return

    async def _class(self, plan: classes.ClassPlan, facts: DriverFacts) -> None:
        about = f"class {plan.original.metadata.name}"
        refusals = [part.message for part in (plan.translation, plan.fstype, plan.parameters, plan.allowed)
                    if isinstance(part, Refusal)]  # fmt: skip
        for refusal in refusals:
            self.say(MISSING, about, refusal, needed=False)
        if plan.original.allowedTopologies and not facts.topology:
            self.say(OFF, about, "its allowedTopologies are not sent: the driver has no topology")
        if not refusals:
            self.say(OK, about, "; ".join(plan.warnings))
        # The other secrets are for the node's part of the driver; the provisioner only writes their names down.
        for role, template in plan.secrets.items():
            if role is templates.PROVISIONER:
                await self._secret(about, template)

    async def _secret(self, about: str, template: templates.Template | Refusal) -> None:
        if isinstance(template, Refusal):
            self.say(MISSING, about, template.message, needed=False)
            return
        templated = "${" in template.namespace
        right = Right("get", "secrets", "", "" if templated else template.namespace, needed=False,
                      without=f"claims of {about} fail")  # fmt: skip
        await self._right(right)
        # Which secret a template means is only known with a claim.
        if templated or "${" in template.name:
            return
        reference = SecretReference(name=template.name, namespace=template.namespace)
        try:
            await self.kube.get(Secret, reference.name, reference.namespace)
        except KubeError as error:
            status = MISSING if error.not_found else NOT_KNOWN
            text = f"claims of {about} fail: {error}"
            self.say(status, f"secret {reference.namespace}/{reference.name}", text, needed=False)
        else:
            self.say(OK, f"secret {reference.namespace}/{reference.name}", f"of {about}")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    return COMMAND.run(arguments, environ, wanted_of, answer)


class Wanted(msgspec.Struct, frozen=True):
    json: bool


def wanted_of(values: Values) -> Wanted:
    return Wanted(values[OUTPUT] == "json")


async def answer(settings: Settings, asked: Wanted) -> int:
    async with connected(settings, COMMAND.name) as (kube, driver):
        check = Check(settings, kube, driver)
        await check.run()
    missing = any(line.status == MISSING and line.needed for line in check.lines)
    if asked.json:
        say_json({"complete": not missing, "checks": check.lines})
    else:
        show(table([list(_cells(line)) for line in check.lines]))
        say("Something is missing." if missing else "All that the flags need is there.")
    return FOUND if missing else 0


def _cells(line: Line) -> Iterator[str]:
    return map(escaped, (line.status, line.about, line.text))
