"""How long a key that failed has to wait: exponential, per key, without a global bucket (provision.md 2.2)."""


class Backoff:
    """Failure counts per key. `next` hands out a delay in seconds and counts one failure more."""

    def __init__(self, start: float, maximum: float) -> None:
        self._start = start
        self._maximum = maximum
        self._failures: dict[str, int] = {}

    def next(self, key: str) -> float:
        """min(start * 2^failures, maximum), then the count grows; very large counts do not overflow."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return self.delay(failures)

    def delay(self, failures: int) -> float:
        """The delay after so many earlier failures: none below 0, and 2^63 s is beyond any that a flag can carry."""
        return max(0.0, min(self._start * 2.0 ** min(failures, 63), self._maximum))

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)
