"""A bound on calls side by side that finds itself, by the times that a back end takes (design.md 7). Pure."""

import math

FIRST, LOWEST = 4, 2
# Of the time that a call has: a round whose median is below the first doubles the bound, and one of whose calls nine in
# ten are below the second raises it by one. What is above leaves too little for a back end whose times vary.
QUICK, ENOUGH = 0.5, 0.75
CUT = 0.7
# Good answers of a round that is not quick throughout: fewer say nothing of the slowest tenth.
LEAST = 20


class Adaptive:
    """`limit`: the seconds that a call has. A round is as many good answers as the bound is, of calls that began in it;
    after the doubling at least LEAST, unless all were quick."""

    def __init__(self, limit: float) -> None:
        self.bound = FIRST
        self.cuts = 0
        self._limit = limit
        self._doubles = True  # until the first cut or the first slower round
        self._cut_at = -math.inf
        self._round = 0
        self._begin_round()

    def _begin_round(self) -> None:
        self._round += 1
        self._times: list[float] = []
        self._used = False

    def begin(self, running: int) -> int:
        """A call begins, and so many run now; the round that it is of."""
        self._used = self._used or running >= self.bound
        return self._round

    def answered(self, round_: int, seconds: float) -> bool:
        """A call was answered well; whether the bound has changed."""
        if round_ != self._round:
            return False
        self._times.append(seconds)
        if (count := len(self._times)) < self.bound:
            return False
        times, quick = sorted(self._times), QUICK * self._limit
        if count < LEAST and not self._doubles and times[-1] >= quick:
            return False
        before = self.bound
        self._doubles = self._doubles and times[count // 2] < quick
        if self._used and (self._doubles or times[count * 9 // 10] < ENOUGH * self._limit):
            self.bound += self.bound if self._doubles else 1
        self._begin_round()
        return self.bound != before

    def timed_out(self, begun: float, now: float) -> bool:
        """A call that began at that time had no answer; whether the bound has changed."""
        # Those that began before the cut ran under the old bound, and say nothing of the new one.
        if begun <= self._cut_at:
            return False
        before, self.bound = self.bound, max(LOWEST, math.floor(self.bound * CUT))
        self.cuts += 1
        self._cut_at, self._doubles = now, False
        self._begin_round()
        return self.bound != before
