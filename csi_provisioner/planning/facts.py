"""What planning must know about the driver: read once at start, the same for every claim (provision.md 8.3)."""

import msgspec


class DriverFacts(msgspec.Struct, frozen=True):
    """`plugin` and `controller` hold capability names as in the proto; `topology` is true only with its gate on."""

    name: str
    in_tree_name: str | None = None
    # Names, not numbers: a capability that this version has no name for is left out when they are read.
    plugin: frozenset[str] = frozenset()
    controller: frozenset[str] = frozenset()
    topology: bool = False

    def answers_to(self, name: str | None) -> bool:
        """Is this the driver's own name or that of the in-tree plugin it supersedes?"""
        return bool(name) and name in (self.name, self.in_tree_name)
