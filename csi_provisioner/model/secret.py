"""The one type secret values live in."""

from collections.abc import Mapping


class SecretData:
    """Decoded values of a Secret. Prints as stripped; `reveal` is for the request to the driver and nothing else."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        # A copy: a mapping that somebody else holds could be printed.
        self._values = dict(values or {})

    def reveal(self) -> dict[str, str]:
        return dict(self._values)

    def __bool__(self) -> bool:
        return bool(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretData) and self._values == other._values

    def __hash__(self) -> int:
        raise TypeError("secret values are not to be hashed or used as keys")

    def __repr__(self) -> str:
        return "***stripped***"
