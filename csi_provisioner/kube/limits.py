"""The client's own limit of requests a second (process.md 5.2): a token bucket, and what the log says of its waits.

Only made when the user asked for it (design.md 3 rule 8). Who is let through when is decided here, in order of
arrival; which requests are counted is the client's affair.
"""

import math

import trio

from csi_provisioner.kube.errors import KubeError
from csi_provisioner.logs import log

# process.md 5.2: what a wait must be to be told at V(3), and at V(2) and V(0); the latter two at most so often
NOTABLE, LONG = 0.05, 1.0
LONG_EVERY, LOUD_EVERY = 1.0, 10.0


class TokenBucket:
    """`qps` requests a second on average, at most `burst` at once; full at first."""

    def __init__(self, qps: float, burst: int) -> None:
        if qps <= 0 or burst <= 0:
            raise ValueError(f"a token bucket needs a rate and a size above 0, not {qps} and {burst}")
        self._qps = qps
        self._burst = burst
        self._tokens = float(burst)  # below 0: so many have been promised to those who wait
        self._at = -math.inf
        self._told_long = -math.inf
        self._told_loud = -math.inf

    async def admit(self, verb: str, path: str) -> None:
        """Returns when the request may be sent; fails at once if its deadline would pass before."""
        now = trio.current_time()
        self._refill(now)
        wait = max(0.0, (1 - self._tokens) / self._qps)
        if now + wait > trio.current_effective_deadline():
            text = f"the client-side limit asks for a wait of {wait:.3g} s, beyond the deadline"
            raise KubeError(0, "Throttled", text)
        self._tokens -= 1
        if not wait:
            return
        try:
            await trio.sleep(wait)
        except trio.Cancelled:
            self._tokens += 1  # not used: who comes next waits less
            raise
        self._tell(wait, verb, path)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps)
            self._at = now

    def _tell(self, wait: float, verb: str, path: str) -> None:
        if wait <= NOTABLE:
            return
        now = trio.current_time()
        level = 3
        if wait > LONG and now - self._told_long >= LONG_EVERY:
            level, self._told_long = 2, now
        if wait > LONG and now - self._told_loud >= LOUD_EVERY:
            level, self._told_loud = 0, now
        facts = {"delay": f"{wait:.3f}s", "reason": "client-side throttling", "verb": verb, "URL": path}
        log.v(level, "Waited before sending request", **facts)
