"""Objects of a list, decoded as far as it takes to see that they are of no interest: what they hold is passed over.

In many clusters nearly all claims and volumes are other drivers', and decoding them is half of what a first list costs.
"""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from lightkube.core.resource import Resource

from csi_provisioner.kube.errors import UNDECODABLE
from csi_provisioner.model.kubernetes import ObjectMeta, OwnerReference, Phase, key

T = TypeVar("T", bound=Resource)

_NULL = msgspec.Raw(b"null")
# Decoders of what a `Heading` leaves as JSON
_TEXTS = msgspec.json.Decoder(dict[str, str] | None)
_OWNERS = msgspec.json.Decoder(list[OwnerReference] | None)


class Heading(ObjectMeta, gc=False):
    """An object's metadata, with what may be many texts left as JSON."""

    annotations: msgspec.Raw = _NULL  # type: ignore[assignment]
    labels: msgspec.Raw = _NULL  # type: ignore[assignment]
    ownerReferences: msgspec.Raw = _NULL  # type: ignore[assignment]


class Outline(msgspec.Struct, gc=False):
    metadata: Heading
    status: Phase | None = None
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    kind: str | None = None


class Look(NamedTuple, Generic[T]):
    """`is_foreign`: nobody here wants it; False where that is not certain. `spec`: the decoder of the kind's."""

    is_foreign: Callable[[Outline], bool]
    kind: Callable[..., T]
    spec: msgspec.json.Decoder[Any]

    def parted(self, outlines: list[Outline], unreadable: dict[str, str]) -> tuple[list[T], list[Outline]]:
        """Those that may be wanted, whole, and the others."""
        items, others, is_foreign = [], [], self.is_foreign
        for outline in outlines:
            try:
                if is_foreign(outline):
                    others.append(outline)
                    continue
            except UNDECODABLE:
                pass  # it cannot be read as a whole either, which says where
            try:
                items.append(self.whole(outline))
            except UNDECODABLE as error:
                unreadable[key(outline)] = str(error)
        return items, others

    def whole(self, outline: Outline) -> T:
        spec = _part("spec", self.spec, outline.spec)
        status = {} if outline.status is None else {"status": outline.status}
        return self.kind(metadata=_metadata(outline.metadata), spec=spec, kind=outline.kind, **status)


def _metadata(heading: Heading) -> ObjectMeta:
    annotations = _part("metadata.annotations", _TEXTS, heading.annotations)
    labels = _part("metadata.labels", _TEXTS, heading.labels)
    owners = _part("metadata.ownerReferences", _OWNERS, heading.ownerReferences)
    before = msgspec.structs.astuple(heading)[:7]
    return ObjectMeta(*(*before, annotations, labels, heading.finalizers, owners))


def _part(name: str, decoder: msgspec.json.Decoder[Any], text: msgspec.Raw) -> Any:
    try:
        return decoder.decode(text)
    except UNDECODABLE as error:
        why, _, where = str(error).partition(" - at `$")
        raise msgspec.ValidationError(f"{why} - at `$.{name}{where or '`'}") from error
