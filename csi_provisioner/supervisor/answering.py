"""What a running provisioner answers to its own commands: put together here, from what its parts know (design.md 8)."""

import os

import trio

from csi_provisioner import __version__, flags
from csi_provisioner.kube.caches import Caches
from csi_provisioner.model.live import Asked, InJournal, Live, LiveClaim
from csi_provisioner.settings import Settings

from .controllers import Controllers
from .observer import Observer
from .parts import Parts


def answer(settings: Settings, observer: Observer, asked: Asked) -> Live:
    state, term = observer.state(), observer.term
    return Live(
        program=__version__,
        pid=os.getpid(),
        up=trio.current_time() - observer.began,
        flags=flags.in_force(settings),
        driver=state.driver,
        leadership=state.leadership,
        works=term is not None,
        unsynced=state.unsynced,
        claim=term.look(asked.claim) if term is not None and asked.claim else None,
    )


def claim(parts: Parts, controllers: Controllers, caches: Caches, uid: str) -> LiveClaim:
    known, now, work = parts.memory.of(uid), trio.current_time(), controllers.claims.look(uid)
    # Asked since this try began, and without a certain answer yet.
    calls = known.asked is not None and work.running is not None and now - known.asked_at <= work.running
    unsaved = known.unsaved
    name = unsaved.volume.metadata.name if unsaved is not None else ""
    return LiveClaim(
        uid,
        cached=caches.claims.has(uid),
        work=work,
        calling=now - known.asked_at if calls else None,
        uncertain=known.asked is not None,
        annotations=None if (taken := controllers.intents.taken(uid)) is None else dict(taken),
        infeasible=known.infeasible.until - now if known.infeasible is not None else None,
        journal=_journal(parts, controllers.intents.name(uid)),
        unsaved=name,
        unsaved_id=unsaved.volume_id if unsaved is not None else "",
        saving=controllers.saves.look(name),
        written=known.written,
        lane=controllers.fairness.lane_of(uid),
    )


def _journal(parts: Parts, volume: str) -> InJournal | None:
    journal = parts.journal
    entry = journal.entry(volume) if journal is not None else None
    if journal is None or entry is None:
        return None
    return InJournal(
        volume,
        f"{journal.lease}-journal-",
        durable=journal.holds(volume),
        uncertain=entry.uncertain,
        of_earlier_leader=volume in journal.inherited,
    )
