"""The pages that every endpoint has: metrics, and the health of the leader election (process.md 6.6, 7)."""

from collections.abc import Callable

from csi_provisioner.diagnostics import health
from csi_provisioner.diagnostics.server import Page, Request, Response, in_turn
from csi_provisioner.logs import escaped
from csi_provisioner.metrics import CONTENT_TYPE, Metrics


def metrics_page(metrics: Metrics) -> Page:
    async def page(_request: Request) -> Response:
        return Response(metrics.render().decode(), content_type=CONTENT_TYPE)

    # In turn, because nothing else runs while a page is rendered.
    return in_turn(page)


def health_page(trouble: Callable[[], str | None]) -> Page:
    """200 `ok` while there is no trouble, 500 with its text otherwise (process.md 6.6)."""

    async def page(_request: Request) -> Response:
        text = trouble()
        return Response("ok") if text is None else Response(f"internal server error: {escaped(text)}\n", 500)

    return page


def conditions_page(conditions: Callable[[], list[health.Condition]]) -> Page:
    """A condition a line; 500 if one has failed."""

    async def page(_request: Request) -> Response:
        well, lines = health.text([(mark, escaped(text)) for mark, text in conditions()])
        return Response(lines, 200 if well else 500)

    return page
