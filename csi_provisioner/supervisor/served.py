"""Which pages the HTTP endpoint has, by the flags (process.md 7)."""

from functools import partial

from csi_provisioner import flags
from csi_provisioner.diagnostics import health, statusz
from csi_provisioner.diagnostics import pages as made
from csi_provisioner.diagnostics.server import Page
from csi_provisioner.metrics import Metrics
from csi_provisioner.settings import HEALTH_PATH, LIVE_PATH, READY_PATH, Settings

from .leading import Leadership
from .observer import Observer


def pages(settings: Settings, metrics: Metrics, observer: Observer, leadership: Leadership) -> dict[str, Page]:
    http, state = settings.http, observer.state
    found = {http.path: made.metrics_page(metrics)}
    if not http.legacy:
        found[LIVE_PATH] = made.conditions_page(lambda: health.live(state()))
        found[READY_PATH] = made.conditions_page(lambda: health.ready(state()))
        if leadership.sought:
            found[HEALTH_PATH] = made.health_page(leadership.health)
    if http.pprof:
        from csi_provisioner.diagnostics import profiles  # cProfile is only loaded where it is wanted

        found.update(profiles.pages())
    if http.has_status_page:
        found.update(statusz.pages(partial(state, details=True), flags.in_force(settings), list(found)))
    return found
