"""Which secrets a class names, and how their names are filled in (provision.md 8.9).

Only names are handled here; what a secret holds is read elsewhere and never passes through this module.
"""

import re
from collections.abc import Mapping

import msgspec

from csi_provisioner.model.kubernetes import SecretReference
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import dns
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.wellknown import PARAMETER_PREFIX


class Role(msgspec.Struct, frozen=True):
    """What a secret is for. `deprecated` are its keys from before the reserved prefix, still sent to the driver."""

    purpose: str
    key: str
    deprecated: str = ""

    def keys(self, part: str) -> tuple[str, ...]:
        """What a class may call its `name` or `namespace`, the old key first."""
        prefixed = f"{PARAMETER_PREFIX}{self.key}-{part}"
        return (f"{self.deprecated}{part.title()}", prefixed) if self.deprecated else (prefixed,)


DEFAULT = Role("default", "secret")
PROVISIONER = Role("provisioner", "provisioner-secret", "csiProvisionerSecret")
CONTROLLER_PUBLISH = Role("controller-publish", "controller-publish-secret", "csiControllerPublishSecret")
NODE_STAGE = Role("node-stage", "node-stage-secret", "csiNodeStageSecret")
NODE_PUBLISH = Role("node-publish", "node-publish-secret", "csiNodePublishSecret")
CONTROLLER_EXPAND = Role("controller-expand", "controller-expand-secret")
NODE_EXPAND = Role("node-expand", "node-expand-secret")
CONTROLLER_MODIFY = Role("controller-modify", "controller-modify-secret")

ROLES = PROVISIONER, CONTROLLER_PUBLISH, NODE_STAGE, NODE_PUBLISH, CONTROLLER_EXPAND, NODE_EXPAND, CONTROLLER_MODIFY
"""In the order in which they are resolved (section 8 steps 16 and 17)."""

_KEYS = frozenset(key for role in (DEFAULT, *ROLES) for part in ("name", "namespace") for key in role.keys(part))
# The old keys are not reserved: drivers read them before there was a prefix, and still get them.
RESERVED_KEYS = frozenset(key for key in _KEYS if key.startswith(PARAMETER_PREFIX))
DEPRECATED_KEYS = _KEYS - RESERVED_KEYS


class Template(msgspec.Struct, frozen=True):
    """A pair of texts with tokens, as the class has them."""

    purpose: str
    name: str
    namespace: str


Templates = Mapping[Role, Template | Refusal]
"""One entry for each role that has a secret; a role without one is not in it."""


def select(parameters: Mapping[str, str]) -> Templates:
    """The templates of every role, the default pair standing in where a role has no keys of its own."""
    default = _pair(DEFAULT, parameters)
    found = ((role, _pair(role, parameters) or default) for role in ROLES)
    return {role: template for role, template in found if template is not None}


def _pair(role: Role, parameters: Mapping[str, str]) -> Template | Refusal | None:
    names, namespaces = ([key for key in role.keys(part) if key in parameters] for part in ("name", "namespace"))
    if not names and not namespaces:
        return None
    # An old key with a new one is legal as long as each half is there once.
    if len(names) > 1 or len(namespaces) > 1:
        twice = " and ".join(names if len(names) > 1 else namespaces)
        return _problem(role, f"gives the same thing twice, as {twice}; keep one of them")
    if not names or not namespaces:
        given, missing = (names, "namespace") if names else (namespaces, "name")
        return _problem(role, f"has {given[0]} without {role.keys(missing)[-1]}; give both or neither")
    name, namespace = parameters[names[0]], parameters[namespaces[0]]
    if not name or not namespace:
        return _problem(role, f"leaves {namespaces[0] if name else names[0]} empty; fill it in or drop both keys")
    return Template(role.purpose, name, namespace)


def _problem(role: Role, what: str) -> Refusal:
    return Refusal(State.NO_CHANGE, f"cannot tell the {role.purpose} secret: the StorageClass {what}")


# ---- tokens


class Subject(msgspec.Struct, frozen=True):
    """What the tokens stand for. `annotations` are the claim's, empty when deleting: the claim is gone by then."""

    volume: str
    claim_namespace: str
    claim_name: str
    annotations: Mapping[str, str] = {}


# The reference fills templates in with os.Expand of Go, so that the odd cases of that are ours too.
_TOKEN = re.compile(
    r"\$(?:"
    r"\{(?P<braced>[^}]*)\}"  # an empty one is dropped
    r"|(?P<unclosed>\{)"  # these two characters are lost
    r"|(?P<special>[*#$@!?\-0-9])"
    r"|(?P<word>[A-Za-z0-9_]+)"
    r")"
)
_ANNOTATION = re.compile(r"pvc\.annotations\['(?P<key>.*)'\]", re.DOTALL)


def resolve(template: Template, subject: Subject) -> SecretReference:
    """The secret's reference for this claim. Fails with `NO_CHANGE` on unknown tokens and on what is no valid name."""
    # The namespace takes nothing that the author of a claim can choose freely, its name or annotations: that would be a
    # way to the secrets of others.
    known = {"pv.name": subject.volume, "pvc.namespace": subject.claim_namespace}
    namespace = _fill(template, "namespace", template.namespace, known, {})
    if not dns.is_label(namespace):
        raise _invalid(template, "namespace", namespace, "a DNS label")
    known["pvc.name"] = subject.claim_name
    name = _fill(template, "name", template.name, known, subject.annotations)
    if not dns.is_subdomain(name):
        raise _invalid(template, "name", name, "a DNS subdomain")
    return SecretReference(name=name, namespace=namespace)


def _fill(template: Template, part: str, text: str, known: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    if "$" not in text:
        return text
    unknown: set[str] = set()

    def replace(match: re.Match[str]) -> str:
        token = match["braced"] or match["special"] or match["word"]
        if not token:
            return ""
        if token in known:
            return known[token]
        annotation = _ANNOTATION.fullmatch(token)
        if annotation is not None and annotation["key"] in annotations:
            return annotations[annotation["key"]]
        unknown.add(token)
        return ""

    filled = _TOKEN.sub(replace, text)
    if unknown:
        raise Refusal(
            State.NO_CHANGE,
            f"cannot fill in the {part} of the {template.purpose} secret, {text!r}: "
            f"nothing known as {', '.join(sorted(unknown))}; correct the StorageClass, "
            "or annotate the claim if it is an annotation that is missing",
        )
    return filled


def _invalid(template: Template, part: str, value: str, wanted: str) -> Refusal:
    return Refusal(
        State.NO_CHANGE,
        f"the {part} of the {template.purpose} secret comes out as {value!r}, which is not {wanted}; "
        "correct the StorageClass or what its template refers to",
    )
