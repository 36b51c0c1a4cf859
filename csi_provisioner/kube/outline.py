"""Objects of a list, decoded as far as it takes to see that they are of no interest: what they hold is passed over.

In many clusters nearly all claims and volumes are other drivers', and decoding them is half of what a first list costs.
"""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from lightkube.core.resource import Resource

from csi_provisioner.kube.errors import UNDECODABLE
from csi_provisioner.model.kubernetes import ObjectMeta, Phase, key

T = TypeVar("T", bound=Resource)


class Outline(msgspec.Struct, gc=False):
    metadata: ObjectMeta
    status: Phase | None = None
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    kind: str | None = None


class Look(NamedTuple, Generic[T]):
    """`is_foreign`: nobody here wants it; False where that is not certain. `spec`: the type of the kind's."""

    is_foreign: Callable[[Outline], bool]
    kind: Callable[..., T]
    spec: type[Any]

    def parted(self, outlines: list[Outline], unreadable: dict[str, str]) -> tuple[list[T], list[Outline]]:
        """Those that may be wanted, whole, and the others."""
        items, others = [], []
        for outline in outlines:
            try:
                if self.is_foreign(outline):
                    others.append(outline)
                else:
                    items.append(self.whole(outline))
            except UNDECODABLE as error:
                unreadable[key(outline)] = str(error).replace("`$", "`$.spec")
        return items, others

    def whole(self, outline: Outline) -> T:
        spec = msgspec.json.decode(outline.spec, type=self.spec)
        status = {} if outline.status is None else {"status": outline.status}
        return self.kind(metadata=outline.metadata, spec=spec, kind=outline.kind, **status)
