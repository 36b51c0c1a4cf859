"""The pages of the HTTP endpoint and the server that serves them (process.md 7).

Importing this loads the web framework, so it is imported only where an endpoint is configured. A page answers every
method, as in the reference; everything that is not a page is 404. What the pages say is decided where it is known.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from csi_provisioner.metrics import CONTENT_TYPE, Metrics

Page = Callable[[Request], Awaitable[Response]]


def application(pages: Mapping[str, Page]) -> Starlette:
    """Serves each page at exactly its path."""
    app = Starlette(
        routes=[Route(path, _AnyMethod(page)) for path, page in pages.items()],
        middleware=[Middleware(GZipMiddleware)],
        exception_handlers={404: _not_found},
    )
    app.router.redirect_slashes = False
    return app


def metrics_page(metrics: Metrics) -> Page:
    async def page(_request: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})

    return page


def health_page(trouble: Callable[[], str | None]) -> Page:
    """200 `ok` while there is no trouble, 500 with its text otherwise (process.md 6.6)."""

    async def page(_request: Request) -> Response:
        text = trouble()
        if text is None:
            return PlainTextResponse("ok")
        return PlainTextResponse(f"internal server error: {text}\n", status_code=500)

    return page


async def serve(
    listener: socket.socket, app: Starlette, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the connections of a socket that listens (`listen.listen`), until cancelled."""
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # hypercorn owns the descriptor from here on
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")  # warnings and errors go on to our log, the rest nowhere
    config.include_server_header = False
    async with trio.open_nursery() as nursery:
        await nursery.start(_serve, app, config)
        task_status.started()


async def _serve(app: ASGIFramework, config: Config, *, task_status: "trio.TaskStatus[list[str]]") -> None:
    await hypercorn_serve(app, config, task_status=task_status)


class _AnyMethod:
    """A page as an ASGI application: a route to one, unlike a route to a function, does not ask for the method."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._page(Request(scope, receive, send))
        await response(scope, receive, send)


async def _not_found(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("404 page not found\n", status_code=404)
