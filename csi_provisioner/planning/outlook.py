"""What becomes of a claim that nothing is against: who leads, what the driver last said, when it is tried next.

What only a running provisioner knows is its answer (`model/live`); without one the Lease and the events say something.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from csi_provisioner import durations
from csi_provisioner.model import kubernetes
from csi_provisioner.model.kubernetes import Event, Lease
from csi_provisioner.model.live import Live, LiveClaim
from csi_provisioner.model.state import KeyState, LaneState
from csi_provisioner.planning import dns, existing, fixes, steps
from csi_provisioner.planning.explanation import Facts, Status, Step, Unread

# Of an event of ours: what the driver answered, what the API server said to a volume that is made.
_OF_DRIVER, _OF_SAVE = "rpc error: code = ", "its PersistentVolume cannot be written"
_AWAY = "DriverUnavailable"
_FAILURES = ("ProvisioningFailed", _AWAY)
_REASONS = ("Provisioning", _AWAY)
_SUFFIX = re.compile("-[0-9a-f]{8}$")


def of(facts: Facts, events: Sequence[Event], unknown: str = "") -> Iterator[Step]:
    """`unknown`: the first step that could not be looked at."""
    if facts.dry:
        yield Step(steps.CALL, Status.WORKS, f"driver {facts.driver.name} would be asked for the volume")
        return
    if facts.may_save is False:
        text = "this process may not create PersistentVolumes, so the driver is not asked for a volume"
        yield Step(steps.RIGHT, Status.REFUSED, text, fixes.SAVE)
        return
    live = facts.live
    away = facts.away
    if live is not None and live.driver.away is not None:
        away = f"it has not answered for {_age(live.driver.away)}"
    if away:
        yield _no_driver(facts, f"driver {facts.driver.name} does not answer: {away}")
        return
    if live is not None and live.works and live.claim is not None:
        yield _leads(live)
        if live.unsynced:
            text = f"its caches are not complete: {', '.join(live.unsynced)}"
            yield Step(steps.QUEUE, Status.WAITS, text, "see its log: rights, API server", "the provisioner's start")
            return
        yield from _journal(live.claim)
        yield _known(live.claim)
        return
    # Nobody here knows the claim: the cluster has to tell.
    leader = _leader(facts)
    yield leader
    if leader.status is not Status.WAITS:
        yield _unknown(facts)
        yield _told(facts, events, unknown)


def _no_driver(facts: Facts, text: str) -> Step:
    fix = "look at the driver's container in the provisioner's pod"
    return Step(steps.DRIVER, Status.WAITS, text, fix, f"driver {facts.driver.name}")


def saving(facts: Facts) -> Iterator[Step]:
    """Of a claim whose volume is made, and whose PersistentVolume is not seen yet."""
    claim = facts.live.claim if facts.live is not None and facts.live.works else None
    if facts.live is not None and claim is not None and (claim.unsaved or claim.written):
        yield _leads(facts.live)
        yield from _journal(claim)
        yield _known(claim)


def tries(facts: Facts) -> Iterator[Step]:
    """Of a claim that is refused: who tries it again, and when."""
    live = facts.live
    if live is not None and live.works and live.claim is not None:
        yield _leads(live)
        yield from _journal(live.claim)
        text = "; ".join(filter(None, (_tries(live.claim.work), _next(live.claim))))
        yield Step(steps.QUEUE, Status.OK, text)
    else:
        yield _leader(facts)
        yield _unknown(facts)


# ---- what a leader knows


def _leads(live: Live) -> Step:
    leads = live.leadership
    since = f" since {_age(leads.since)}" if leads.since is not None else ""
    text = f"this provisioner leads{since} ({leads.holder or leads.identity})" if leads.sought else "no election"
    return Step(steps.LEADER, Status.OK, text)


def _journal(claim: LiveClaim) -> Iterator[Step]:
    entry = claim.journal
    if entry is not None:
        parts = [f"in Leases {entry.leases}..." if entry.durable else "its entry is being written"]
        if entry.of_earlier_leader:
            parts.append("an earlier leader began it")
        if entry.uncertain:
            parts.append("a call for it has no certain end")
        yield Step(steps.JOURNAL, Status.OK, "; ".join(parts))


def _known(claim: LiveClaim) -> Step:
    last, tries, next_ = claim.work.last, _tries(claim.work), _next(claim)
    if claim.written:
        text = f"PersistentVolume {claim.written} is written, and the claim is not bound to it yet"
        fix = "does kube-controller-manager run? See its log"
        return Step(steps.BIND, Status.WAITS, text, fix, existing.VOLUME_CONTROLLER)
    if claim.unsaved and claim.saving.last is not None:
        text = f"volume {claim.unsaved_id} is made, and its PersistentVolume cannot be written: "
        return _unsaved(text + claim.saving.last.text)
    if claim.unsaved:
        return Step(steps.SAVE, Status.WORKS, f"volume {claim.unsaved_id} is made; {claim.unsaved} is being written")
    if claim.calling is not None:
        text = f"CreateVolume is under way for {_age(claim.calling)}"
        return Step(steps.CALL, Status.WORKS, text + (f"; {tries}" if tries else ""))
    # Whatever the driver has said: it is not asked again before that is changed.
    if claim.lane is not None and claim.lane.bound == 0:
        text = f"StorageClass {claim.lane.lane.class_!r} may have no calls to the driver"
        return Step(steps.QUEUE, Status.REFUSED, f"{text}; {tries}" if tries else text, fixes.MAX_CALLS)
    if claim.infeasible is not None:
        text = f"the driver refuses the claim as it stands: {last.text if last else 'InvalidArgument'}"
        fix = f"correct the class or the claim; asked again in {_age(claim.infeasible)}, or once the class is made anew"
        return Step(steps.CALL, Status.REFUSED, text, fix)
    # What was refused before the call is in order by now: the stages have been through all of it.
    if last is not None and last.step == steps.CALL:
        return Step(steps.CALL, Status.REFUSED, f"{tries}; {next_}", fixes.of_answer(last.text))
    return Step(steps.QUEUE, Status.WORKS, f"{tries}; {next_}" if tries else next_)


def _unsaved(text: str) -> Step:
    forbidden = "403" in text or "forbidden" in text.lower()
    fix = fixes.SAVE if forbidden else "only another answer of the driver (volume id, context, topology) will do"
    return Step(steps.RIGHT if forbidden else steps.SAVE, Status.REFUSED, text, fix)


def _tries(work: KeyState) -> str:
    last = work.last
    return f"{work.tries} tries failed, the last one {_age(last.ago)} ago: {last.text}" if last else ""


def _next(claim: LiveClaim) -> str:
    work = claim.work
    if work.running is not None:
        return f"it is worked on for {_age(work.running)}{_lane(claim.lane)}"
    if work.due is None:
        return "the leader does not have the claim yet" if not claim.cached else "nothing is due for it"
    if work.due <= 0:
        return f"it waits for a worker for {_age(-work.due)}{_lane(claim.lane)}"
    return f"next try in {_age(work.due)}"


def _lane(lane: LaneState | None) -> str:
    if lane is None or not (lane.calls or lane.waiting):
        return ""
    most = f" of at most {lane.bound}" if lane.bound is not None else ""
    source = f" and source {lane.lane.source}" if lane.lane.source else ""
    return f"; of its class{source} {lane.calls} calls run{most}, and {lane.waiting} wait"


# ---- from outside


def _leader(facts: Facts) -> Step:
    if facts.elects is False:
        return Step(steps.LEADER, Status.OK, "no election: the provisioner works while it runs")
    if facts.lease is None:
        text = "who leads is not known: --leader-election-namespace says where the Lease is"
        return Step(steps.LEADER, Status.NOT_KNOWN, text)
    where = f"Lease {facts.lease.namespace}/{facts.lease.name}"
    found = facts.read(*facts.lease)
    if isinstance(found, Unread) and not (found.missing and facts.elects):
        text = f"there is no {where}: no election?" if found.missing else found.why
        return Step(steps.LEADER, Status.NOT_KNOWN, text)
    if isinstance(found, Unread):
        return _nobody(f"there is no {where}")
    return _held(facts, found, where)


def _held(facts: Facts, lease: Lease, where: str) -> Step:
    spec = lease.spec
    if not spec.holderIdentity:
        return _nobody(f"nobody holds {where}")
    late = facts.now - _when(spec.renewTime) - (spec.leaseDurationSeconds or 0) if spec.renewTime else 0
    if late > 0:
        return _nobody(f"{spec.holderIdentity} in {where} has not renewed it: it ran out {_age(late)} ago")
    since = f" since {spec.acquireTime}" if spec.acquireTime else ""
    return Step(steps.LEADER, Status.OK, f"{spec.holderIdentity} leads{since}")


def _nobody(text: str) -> Step:
    fix = "does a pod of the provisioner run, and does its driver answer? Only then it competes for the Lease"
    return Step(steps.LEADER, Status.WAITS, f"no provisioner leads: {text}", fix, "the provisioner's pods")


def _unknown(facts: Facts) -> Step:
    """The line that asks the leader."""
    live = facts.live
    idle = live is None or (live.leadership.sought and not live.leadership.leads)
    text = facts.silent or ("this provisioner stands by" if idle else "this provisioner has not begun its work yet")
    lease = facts.read(*facts.lease) if facts.lease is not None else None
    if isinstance(lease, Lease) and lease.spec.holderIdentity:
        holder = lease.spec.holderIdentity
        pod = _SUFFIX.sub("", holder)
        # People copy the line into a shell, and whoever may write Leases chooses the name.
        if dns.is_subdomain(pod):
            text += f"; kubectl -n {lease.metadata.namespace} exec {pod} -c csi-provisioner -- "
            text += f"/explain {kubernetes.key(facts.claim)}"
        else:
            text += f"; the Lease's holder {holder[:100]!r} names no pod"
    return Step(steps.QUEUE, Status.NOT_KNOWN, text)


def _told(facts: Facts, events: Sequence[Event], unknown: str) -> Step:
    """By the last event about a try."""
    told = [event for event in events if event.reason.startswith(_REASONS) and _is_ours(event, facts)]
    last = told[-1] if told else None
    if last is None or last.reason not in _FAILURES:
        return Step(steps.QUEUE, Status.WORKS, "nothing is in the way: the next is the provisioner's try")
    age = max(0.0, facts.now - _when(last.lastTimestamp or last.metadata.creationTimestamp))
    text = f"the last event, {_age(age)} ago: {last.message}"
    if last.reason == _AWAY:
        return _no_driver(facts, text)
    if _OF_SAVE in last.message:
        return _unsaved(text)
    if _OF_DRIVER in last.message:
        return Step(steps.CALL, Status.REFUSED, text, fixes.of_answer(last.message))
    # What could not be looked at here may be what it tells of.
    if unknown:
        message, fix = fixes.parted(text)
        fix = fix or "ask in the provisioner's pod, or with an account that may see what is not known here"
        return Step(unknown, Status.REFUSED, message, fix)
    return Step(steps.QUEUE, Status.WORKS, f"what it says is in order by now: {text}")


def _is_ours(event: Event, facts: Facts) -> bool:
    # The volume controller writes events of the same reason.
    return event.source.component.startswith(f"{facts.driver.name}_")


def _when(time: str | None) -> float:
    try:
        return datetime.fromisoformat((time or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _age(seconds: float) -> str:
    return durations.show(round(seconds))
