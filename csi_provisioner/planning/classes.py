"""A StorageClass read once: everything about it that no claim can change (provision.md 8 steps 1, 3, 9, 16 to 18).

What is wrong with a class is kept as a `Refusal` and raised for each claim at its own step, so that the order of the
checks does not depend on what was read first. Callers may keep a `ClassPlan` for as long as the class's UID and
resourceVersion stay the same.
"""

from collections.abc import Mapping

import msgspec

from csi_provisioner.migration import TranslationError, translate
from csi_provisioner.model.kubernetes import StorageClass
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import parameters, templates, terms
from csi_provisioner.planning import topology_refusals as refusals
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.templates import Templates
from csi_provisioner.planning.terms import Allowed


class ClassPlan(msgspec.Struct, frozen=True):
    """`original` is the class as it is in the cluster, `effective` its translation to CSI if it is an in-tree one."""

    original: StorageClass
    effective: StorageClass
    migrated: bool
    fstype: str | Refusal
    parameters: Mapping[str, str] | Refusal
    secrets: Templates
    allowed: Allowed | Refusal | None
    """None: the volumes may be anywhere."""
    warnings: tuple[str, ...] = ()
    translation: Refusal | None = None


def read(storage_class: StorageClass, driver: DriverFacts) -> ClassPlan:
    translation = translated(storage_class, driver)
    problem = translation if isinstance(translation, Refusal) else None
    # One that cannot be translated is read as it is: nothing of that is used, because each claim is refused before.
    effective = storage_class if isinstance(translation, Refusal) else translation
    name, given = storage_class.metadata.name, effective.parameters or {}
    return ClassPlan(
        original=storage_class,
        effective=effective,
        migrated=is_in_tree(storage_class, driver),
        fstype=parameters.fstype(name, given),
        parameters=parameters.for_driver(name, given),
        secrets=templates.select(given),
        allowed=_allowed(effective),
        warnings=parameters.warnings(name, given) + _losses(storage_class, driver),
        translation=problem,
    )


def _allowed(storage_class: StorageClass) -> Allowed | Refusal | None:
    """Multiplied out once, not for each claim."""
    if terms.too_many(storage_class.allowedTopologies or ()):
        return refusals.too_many_terms(storage_class.metadata.name)
    return terms.read(storage_class.allowedTopologies)


def is_in_tree(storage_class: StorageClass, driver: DriverFacts) -> bool:
    """Of the plugin the driver supersedes: the class decides that, never the claim's annotations (section 14.1)."""
    # Kubernetes rewrites the annotations of claims when migration is switched on or off. The class keeps its name.
    return driver.in_tree_name is not None and storage_class.provisioner == driver.in_tree_name


def _losses(storage_class: StorageClass, driver: DriverFacts) -> tuple[str, ...]:
    """One line for each parameter that does not survive the translation (section 14.2)."""
    if not is_in_tree(storage_class, driver):
        return ()
    return tuple(
        f"StorageClass {storage_class.metadata.name!r} has the parameter {key!r}, which driver {driver.name} does not "
        "take over from the in-tree plugin: it is left out"
        for key in translate.dropped_parameters(storage_class, driver.name)
    )


def translated(storage_class: StorageClass, driver: DriverFacts) -> StorageClass | Refusal:
    """The class in the terms of CSI: the same object unless it is an in-tree one."""
    if not is_in_tree(storage_class, driver):
        return storage_class
    try:
        return translate.storage_class(storage_class, driver.name)
    except TranslationError as error:
        return Refusal(
            State.FINISHED,
            f"cannot translate StorageClass {storage_class.metadata.name!r} of {storage_class.provisioner} "
            f"for driver {driver.name}: {error}; correct its parameters",
        )
