"""References to secrets: for a new volume (provision.md 8 steps 16, 17) and for a volume's deletion (delete.md 8).

Only the provisioner's secret is ever read, by the caller and live; the others are written down in the volume.
"""

from collections.abc import Callable, Mapping

import msgspec

from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import PersistentVolume, Secret, SecretReference, StorageClass
from csi_provisioner.model.outcome import State
from csi_provisioner.model.secret import SecretData
from csi_provisioner.planning import classes, dns, templates, wellknown
from csi_provisioner.planning.draft import Draft
from csi_provisioner.planning.facts import DriverFacts
from csi_provisioner.planning.refusal import Refusal, accepted
from csi_provisioner.planning.templates import Role, Subject, Templates

References = Mapping[Role, SecretReference | None]
"""What the volume will name: the provisioner's in its annotations for the deletion. A role without one is not in it."""


def provisioner_reference(draft: Draft) -> SecretReference | None:
    """Step 16: the secret to read now."""
    return _resolve(draft.class_plan.original, draft.class_plan.secrets, templates.PROVISIONER, _subject(draft))


def references(draft: Draft) -> References:
    """Step 17, in the order of the roles; includes the provisioner's."""
    given, subject = draft.class_plan.secrets, _subject(draft)
    return {role: _resolve(draft.class_plan.original, given, role, subject) for role in given}


def unreadable(draft: Draft, reference: SecretReference, why: object) -> Refusal:
    """The caller's GET of the provisioner's secret failed."""
    return Refusal(
        State.NO_CHANGE,
        f"cannot read the provisioner secret {reference.namespace}/{reference.name} that StorageClass "
        f"{draft.class_plan.original.metadata.name} names: {why}",
    )


def decoded(secret: Secret) -> SecretData:
    """The values as text: a driver can be sent nothing else. The first value that is not text is refused, named by its
    key."""
    # The API has bytes, and the messages of CSI have text.
    values: dict[str, str] = {}
    wrong: list[str] = []
    for key, value in (secret.data or {}).items():
        try:
            values[key] = value.decode()
        except UnicodeDecodeError:  # which holds the value: nothing is raised from in here
            wrong.append(key)
    if wrong:
        raise Refusal(
            State.NO_CHANGE,
            f"the value of {wrong[0]!r} in secret {kubernetes.key(secret)} is not UTF-8 text, and a driver can be sent "
            "nothing else; encode it as the driver expects it",
        )
    return SecretData(values)


def _subject(draft: Draft) -> Subject:
    meta = draft.claim.metadata
    return Subject(draft.name, meta.namespace or "", meta.name, meta.annotations or {})


def _resolve(named_by: StorageClass, given: Templates, role: Role, subject: Subject) -> SecretReference | None:
    """A refusal names the class, so that whoever reads it on a claim finds the class."""
    template = given.get(role)
    if template is None:
        return None
    try:
        return templates.resolve(accepted(template), subject)
    except Refusal as refusal:
        raise Refusal(
            refusal.state, f"StorageClass {named_by.metadata.name!r}: {refusal.message}", refusal.detail
        ) from refusal


# ---- deletion


def deletion_unreadable(volume: PersistentVolume, reference: SecretReference, why: object) -> Refusal:
    """The caller's GET failed in another way than that there is no such secret."""
    return Refusal(
        State.FINISHED,
        f"volume {volume.metadata.name} waits to be deleted: cannot read its secret "
        f"{reference.namespace}/{reference.name}: {why}",
    )


class DeletionSecret(msgspec.Struct, frozen=True):
    """The secret to read for DeleteVolume, if any. One that is not found is logged, and the call goes out without."""

    reference: SecretReference | None = None
    warning: str = ""


def deletion_reference(
    volume: PersistentVolume, class_of: Callable[[str], StorageClass | None], driver: DriverFacts, *, migrated: bool
) -> DeletionSecret:
    """The three branches of delete.md 8; `class_of` gives what the cache has under a name."""
    annotations = volume.metadata.annotations or {}
    pv = volume.metadata.name
    name = annotations.get(wellknown.DELETION_SECRET_NAME)
    namespace = annotations.get(wellknown.DELETION_SECRET_NAMESPACE)
    # That both are there decides, whatever they hold: empty ones say that the volume has no secret.
    if name is not None and namespace is not None:
        # Half a reference is none, as in the reference.
        if not name or not namespace:
            return DeletionSecret()
        if not (dns.is_subdomain(name) and dns.is_label(namespace)):
            raise Refusal(
                State.FINISHED,
                f"cannot delete volume {pv}: its annotations name the secret {name!r} in namespace "
                f"{namespace!r}, which no object can be called; correct {wellknown.DELETION_SECRET_NAME} and "
                f"{wellknown.DELETION_SECRET_NAMESPACE}, or leave them empty",
            )
        return DeletionSecret(SecretReference(name=name, namespace=namespace))
    class_name = annotations.get(wellknown.BETA_STORAGE_CLASS, volume.spec.storageClassName)
    if not class_name:
        return DeletionSecret()
    storage_class = class_of(class_name)
    if storage_class is None:
        return DeletionSecret(warning=f"StorageClass {class_name} is gone: deleting volume {pv} without secrets")
    # Only the translation has the parameters of some in-tree classes under the names that are looked for (Portworx).
    if migrated:
        storage_class = accepted(classes.translated(storage_class, driver))
    claim = volume.spec.claimRef
    if claim is None:
        return DeletionSecret(warning=f"volume {pv} names no claim: deleting it without secrets")
    # The claim may be gone, so its annotations are no part of what tokens can stand for.
    subject = Subject(pv, claim.namespace or "", claim.name)
    given = templates.select(storage_class.parameters or {})
    return DeletionSecret(_resolve(storage_class, given, templates.PROVISIONER, subject))
