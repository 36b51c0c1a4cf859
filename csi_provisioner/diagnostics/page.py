"""The page for people: the state as HTML that needs nothing else, no network and no JavaScript (process.md 7).

With JavaScript the part that changes is fetched anew, made by the same code. Everything that goes into it is text of
others, so `el` escapes whatever is not its own.
"""

import base64
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path

from csi_provisioner.diagnostics import health
from csi_provisioner.logs import escaped
from csi_provisioner.model.state import Details, KeyState, Rate, State

# Their own files, so that an editor knows what they are.
STYLE, SCRIPT = (Path(__file__).with_name(f"page.{kind}").read_text() for kind in ("css", "js"))
_HASH = base64.b64encode(sha256(SCRIPT.encode()).digest()).decode()
# Even a name that got through as markup could do nothing.
POLICY = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'; connect-src 'self'"
MARKS = {health.OK: "ok", health.FAILED: "failed", health.NOTE: "note"}
MINUTES = 60
SPACE = "\u00a0"
"""Lines are not broken at it."""


class Markup(str):
    """HTML that was made here."""

    __slots__ = ()


def el(tag: str, *children: object, **attributes: object) -> Markup:
    """An element. Text is escaped, `class_` is class, and an attribute that is None is left out."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{given}>{joined(children)}</{tag}>")


def joined(children: Iterable[object]) -> Markup:
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(escaped(str(child)))
            for child in children
            if child is not None
        )
    )


def whole(state: State, version: str, *, local: bool) -> str:
    name = state.driver.name or "no driver yet"
    head = el(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        el("title", f"{name} - csi-provisioner"),
        el("style", Markup(STYLE)),
    )
    header = el("header", el("h1", name), el("p", f"csi-provisioner {version} ", el("span", id="live")))
    content = el("body", header, el("main", body(state, local=local)), el("script", Markup(SCRIPT)))
    return f"<!doctype html>\n{el('html', head, content, lang='en')}\n"


def body(state: State, *, local: bool) -> Markup:
    details = state.details or Details()
    return joined(
        (
            _conditions(state),
            _pending(state),
            _rates(details),
            _waiting(state, details),
            _queues(state),
            _tasks(details),
            _lanes(state),
            _failures(state),
            _caches(state, details),
            _capacity(details),
            _leftovers(details),
            el("footer", LOCAL if local else STRANGER, f"Up {span(state.up)}."),
        )
    )


LOCAL = "Names and messages are shown because you come from within the pod; others see counts, ages and reasons. "
STRANGER = (
    "This port has no authentication: names, messages and flags are shown to a loopback peer only "
    "(kubectl port-forward POD PORT, then http://localhost:PORT/statusz). "
)


# ---- parts


def _conditions(state: State) -> Markup:
    conditions = [each for each in health.live(state) if each[0] == health.FAILED] + health.ready(state)
    leader, driver = state.leadership, state.driver
    # A stranger is not told who, and before the first look at the lease nobody knows.
    other = "not known" if leader.since is None else "another process"
    facts = [
        ("Driver", " ".join(part for part in (driver.name, driver.version) if part) or "not met yet"),
        ("Answers", "yes" if driver.ready else f"no, for {span(driver.away)}" if driver.away else "no"),
        ("Leads", "this process" if leader.leads else leader.holder or other),
        ("Since", span(leader.since) if leader.since is not None else "not known"),
        ("Lease", leader.lease),
        ("Capabilities", ", ".join((*driver.plugin, *driver.controller))),
    ]
    lines = [el("li", escaped(text), class_=MARKS[mark]) for mark, text in conditions]
    rows = joined(joined((el("dt", name), el("dd", text))) for name, text in facts if text)
    return _card("State", joined((el("ul", joined(lines), class_="conditions"), el("dl", rows))), shape="wide stack")


def _pending(state: State) -> Markup:
    rows = [[each.class_ or "(none)", each.reason, each.count, span(each.oldest)] for each in state.pending]
    return _card("Claims without a volume", _table(("class", "why", "claims", "oldest"), rows, _none(state)))


def _waiting(state: State, details: Details) -> Markup:
    rows = [
        [each.name or "-", each.class_ or "(none)", each.reason, span(each.age), each.work.tries, _next(each.work),
         _last(each.work)]
        for each in details.waiting
    ]  # fmt: skip
    head = ("claim", "class", "why", "waits for", "failed tries", "next try", "last failure")
    return _card("Oldest of them", _table(head, rows, _none(state)), shape="wide stack")


def _none(state: State) -> str:
    return "None waits." if state.begun else "Not known: nothing is worked on here."


def _next(work: KeyState) -> str:
    if work.running is not None:
        return f"now, for {span(work.running)}"
    if work.due is None:
        return "when something changes"
    return f"in {span(work.due)}" if work.due > 0 else "is due"


def _last(work: KeyState) -> str:
    return "" if work.last is None else f"{work.last.kind}, {span(work.last.ago)} ago: {work.last.text}".rstrip(": ")


def _tasks(details: Details) -> Markup:
    rows = [
        [task.name or "-", task.queue, span(task.age), "" if task.calling is None else span(task.calling)]
        for task in details.tasks
    ]
    return _card("At work", _table(("what", "queue", "age", "call in flight"), rows, "Nothing is at work."))


def _queues(state: State) -> Markup:
    rows = [[each.name, each.due, each.running, span(each.oldest) if each.due else ""] for each in state.queues]
    return _card("Queues", _table(("queue", "waiting", "at work", "oldest"), rows, "A standby has none."))


def _lanes(state: State) -> Markup | None:
    """Which class and kind of source has which share of the calls (design.md 7)."""
    rows = [
        [queue.name, each.lane.class_ or "(none)", each.lane.source, each.waiting, each.calls,
         "" if each.bound is None else each.bound, "" if each.cuts is None else each.cuts]
        for queue in state.queues
        for each in queue.lanes
    ]  # fmt: skip
    if not rows:
        return None
    head = ("queue", "class", "source", "waiting", "calls", "bound", "cuts")
    return _card("Lanes", _table(head, rows, ""), shape="wide stack")


def _failures(state: State) -> Markup:
    rows = [[f"{span(each.ago)} ago", each.queue, each.error or "-"] for each in state.failures[:10]]
    return _card("Recent failures", _table(("when", "queue", "what"), rows, "None."), shape="wide stack")


def _caches(state: State, details: Details) -> Markup:
    lags, counts = dict(state.lags), dict(details.objects)
    rows = [
        [
            kind,
            counts.get(kind, ""),
            "first list" if kind in state.unsynced else span(lags[kind]) if kind in lags else "",
        ]
        for kind in sorted({*lags, *counts, *state.unsynced})
    ]
    return _card("Caches", _table(("kind", "objects", "last heard"), rows, "A standby has none."))


def _capacity(details: Details) -> Markup | None:
    if not details.published:
        return None
    most = max((each.bytes for each in details.capacity), default=0) or 1
    rows = [
        [each.segment or "all nodes", each.class_, _bar(each.bytes / most), size(each.bytes)]
        for each in details.capacity
    ]
    note = f"{details.published} objects." if len(details.capacity) < details.published else None
    table = _table(("segment", "class", "", "free"), rows, "Segments are named to a loopback peer only.")
    return _card("Capacity", joined((table, el("p", note) if note else None)), shape="stack")


def _leftovers(details: Details) -> Markup:
    journal = details.journal
    if journal is None:
        kept = "not kept here"
    elif journal.off:
        kept = f"off: {journal.off}"
    else:
        kept = (
            f"{journal.entries} volumes, {journal.inherited} of earlier leaders" if journal.kept else "not taken over"
        )
    rows = joined(
        joined((el("dt", name), el("dd", text)))
        for name, text in (("Journal", kept), ("Suspected orphans", str(details.suspects)))
    )
    hint = el("p", "csi-provisioner orphans lists them.") if details.suspects else None
    return _card("Volumes that may be lost", joined((el("dl", rows), hint)))


def _rates(details: Details) -> Markup:
    plots = joined(
        el("figure", el("figcaption", f"{rate.what} ", el("b", sum(rate.minutes)), " in the last hour"), _plot(rate))
        for rate in details.rates
    )
    return _card("Last hour", plots or el("p", "A standby has none."))


# ---- what they are made of


def _card(title: str, content: Markup, *, shape: str | None = None) -> Markup:
    return el("section", el("h2", title), content, class_=shape)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> Markup:
    if not rows:
        return el("p", nothing, class_="nothing")
    top = el("thead", el("tr", joined(el("th", name, scope="col") for name in head)))
    # Where there is no room for columns, each cell has its head beside it.
    lines = (
        el("tr", joined(el("td", cell, data_head=name) for name, cell in zip(head, row, strict=True))) for row in rows
    )
    return el("div", el("table", top, el("tbody", joined(lines))), class_="scroll")


def _plot(rate: Rate) -> Markup:
    """A bar a minute, the newest at the right."""
    most = max(rate.minutes, default=0) or 1
    left = MINUTES - len(rate.minutes)
    bars = joined(
        el("rect", x=left + at, y=f"{20 - 20 * count / most:.2f}", width="0.8", height=f"{20 * count / most:.2f}")
        for at, count in enumerate(rate.minutes)
        if count
    )
    label = f"{rate.what}: at most {most if any(rate.minutes) else 0} a minute"
    return el("svg", el("title", label), bars, viewBox=f"0 0 {MINUTES} 20", preserveAspectRatio="none", role="img")


def _bar(share: float) -> Markup:
    return el("span", el("i", style=f"width:{100 * share:.0f}%"), class_="bar")


def span(seconds: float | None) -> str:
    """As people say it: two units at most."""
    if seconds is None:
        return ""
    left = round(max(0.0, seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{SPACE}{unit}")
    return SPACE.join(parts[:2])


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count:.3g}{SPACE}{unit}"
        count /= 1024
    return f"{count:.4g}{SPACE}PiB"
