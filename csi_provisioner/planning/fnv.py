"""The FNV hashes, 32 bit, that names are made from: two variants, which differ in the order of two steps."""

# The mask does what a number of 32 bits does by itself in other languages.
_START, _PRIME, _MASK = 2166136261, 16777619, 2**32 - 1


def fnv1(text: str) -> int:
    """Multiply, then XOR: for the spreading of claims (topology.md 6)."""
    value = _START
    for byte in text.encode():
        value = value * _PRIME & _MASK ^ byte
    return value


def fnv1a(text: str) -> int:
    """XOR, then multiply: for the labels of capacity objects (capacity.md 4)."""
    value = _START
    for byte in text.encode():
        value = (value ^ byte) * _PRIME & _MASK
    return value
