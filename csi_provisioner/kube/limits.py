"""The client's own limit of requests a second (process.md 5.2): a token bucket, and what the log says of its waits.

Only made when the user asked for it (design.md 3 rule 8). Who is let through when is decided here, in order of
arrival; which requests are counted is the client's affair.
"""

import math

import trio

from csi_provisioner.kube.errors import KubeError
from csi_provisioner.logs import log

# A wait of this many seconds is told at V(3) (process.md 5.2)
NOTABLE = 0.05
# A longer one is told louder, by level: so many seconds apart at most
LONG = 1.0
APART = {2: 1.0, 0: 10.0}


class TokenBucket:
    """`qps` requests a second on average, at most `burst` at once, both above 0; full at first."""

    def __init__(self, qps: float, burst: int) -> None:
        self._qps = qps
        self._burst = burst
        self._tokens = float(burst)  # below 0: so many have been promised to those who wait
        self._at = -math.inf
        self._told = dict.fromkeys(APART, -math.inf)

    async def admit(self, verb: str, path: str) -> None:
        """Returns when the request may be sent; fails at once if its deadline would pass before."""
        now = trio.current_time()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps)
        self._at = now
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

    def _tell(self, wait: float, verb: str, path: str) -> None:
        if wait <= NOTABLE:
            return
        level, now = 3, trio.current_time()
        for louder, apart in APART.items():
            if wait > LONG and now - self._told[louder] >= apart:
                level, self._told[louder] = louder, now
        facts = {"delay": f"{wait:.3f}s", "reason": "client-side throttling", "verb": verb, "URL": path}
        log.v(level, "Waited before sending request", **facts)
