"""How an explanation is shown: to people, in at most 100 columns with the cause first, and to programs as JSON."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from csi_provisioner.csi.redaction import redact
from csi_provisioner.logs import escaped
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import Event, PersistentVolumeClaim
from csi_provisioner.planning.explanation import Explanation, Status, Step

# Of the JSON: a field is only ever added
VERSION = 1
WIDTH = 100
EVENTS = 5
"""The last ones of a claim."""
TEXTS = {
    Status.DONE: "{claim}: {text}",
    Status.WORKS: "{claim} is being worked on ({step}): {text}",
    Status.WAITS: "{claim} waits for {who} ({step}): {text}",
    Status.REFUSED: "{claim} is refused ({step}): {text}",
}


@dataclass(frozen=True)
class Shown:
    claim: PersistentVolumeClaim
    driver: str
    found: Explanation
    assumed: Sequence[str]
    dry: bool

    def _events(self) -> Sequence[Event]:
        return self.found.events[-EVENTS:]

    def _request(self) -> Any:
        plan = self.found.plan
        return None if plan is None else json.loads(redact(plan.request))

    def json(self, request: bool) -> str:
        decisive = self.found.decisive
        shown = {
            "version": VERSION,
            "claim": kubernetes.key(self.claim),
            "uid": self.claim.metadata.uid,
            "driver": self.driver,
            "status": decisive.status,
            "reason": decisive.step,
            "cause": decisive.text,
            "fix": decisive.fix,
            "who": decisive.who,
            "assumed": self.assumed,
            "steps": self.found.steps,
            "events": [
                {"type": event.type, "reason": event.reason, "message": event.message, "time": _time(event)}
                for event in self._events()
            ],
        }
        if request:
            shown["request"] = self._request()
        return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode() + "\n"

    def text(self, request: bool) -> str:
        return "".join(f"{line}\n" for line in self._lines(request))

    def _lines(self, request: bool) -> Iterator[str]:
        decisive = self.found.decisive
        if self.assumed:
            yield from _wrapped(f"Assumed: {'; '.join(self.assumed)}.")
        form = TEXTS.get(decisive.status, "{claim} is not known ({step}): {text}")
        key = "Such a claim" if self.dry else kubernetes.key(self.claim)
        if self.dry and decisive.status is Status.WORKS:
            form = "{claim} would get a volume ({step}): {text}"
        yield from _wrapped(form.format(claim=key, step=decisive.step, text=decisive.text, who=decisive.who))
        if decisive.fix:
            yield from _wrapped(f"Fix: {decisive.fix}")
        yield ""
        for step in self.found.steps:
            yield from _row(step)
        # After the steps: they tell of the past, and repeat the cause in other words.
        if events := self._events():
            yield from ("", "Events:")
            for event in events:
                yield from _wrapped(f"{_time(event)} {event.type} {event.reason}: {event.message}", "  ")
        if request:
            shown = json.dumps(self._request(), indent=2) if self.found.plan is not None else "  not known, see above"
            yield from ("", "CreateVolumeRequest:")
            for line in shown.splitlines():
                yield from _wrapped(line.strip(), " " * (len(line) - len(line.lstrip())))


def _row(step: Step) -> Iterator[str]:
    head = f"{step.step:<11} {step.status.value:<10} "
    yield from _wrapped(step.text, " " * len(head), head)


def _time(event: Event) -> str:
    return event.lastTimestamp or event.metadata.creationTimestamp or ""


def _wrapped(text: str, indent: str = "", first: str | None = None) -> list[str]:
    return textwrap.wrap(
        escaped(text),
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,  # in names, which people copy
    )
