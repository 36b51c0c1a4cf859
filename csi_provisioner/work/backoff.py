"""How long a key that failed has to wait: exponential, per key, without a global bucket (provision.md 2.2)."""


class Backoff:
    """Failure counts per key. `next` hands out a delay in seconds and counts one failure more."""

    def __init__(self, start: float, maximum: float) -> None:
        self._start = start
        self._maximum = maximum
        self._failures: dict[str, int] = {}
        self._losses: dict[str, int] = {}

    def next(self, key: str, *, lost: bool = False) -> float:
        """min(start * 2^failures, maximum), then the count grows; very large counts do not overflow."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        if lost:
            self.excuse(key)
        else:
            # The driver has survived this call, so the key is not to blame for the losses before.
            self._losses.pop(key, None)
        return self.delay(failures)

    def delay(self, failures: int) -> float:
        """The delay after so many earlier failures: none below 0, and 2^63 s is beyond any that a flag can carry."""
        return max(0.0, min(self._start * 2.0 ** min(failures, 63), self._maximum))

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)
        self._losses.pop(key, None)

    def excuse(self, key: str) -> None:
        """A call for the key was lost with the driver's connection; by itself that is no failure."""
        self._losses[key] = self._losses.get(key, 0) + 1

    def losses(self, key: str) -> int:
        """How many calls in a row were lost. One is an accident; from the second on the key may be what the driver
        does not survive."""
        return self._losses.get(key, 0)
