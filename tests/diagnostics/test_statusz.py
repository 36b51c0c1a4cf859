"""`/statusz` and `/flagz` over HTTP: the forms of Kubernetes 1.36, as its API server answers; who is shown what."""

import platform
import re

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner import __version__
from csi_provisioner.diagnostics import statusz
from csi_provisioner.model.state import State
from tests.diagnostics.conversation import serving
from tests.diagnostics.pictures import WAITING
from tests.embedded import VIRTUAL

PAGES = statusz.pages(lambda: WAITING, {"csi-address": "/csi/csi.sock", "v": "5"}, ["/metrics", "/livez"])
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
JSON = "application/json;v=v1beta1;g=config.k8s.io;as=Statusz"


@pytest.fixture
def anyio_backend() -> object:
    return VIRTUAL


async def got(path: str, accept: str | None = None, **headers: str) -> httpx2.Response:
    async with serving(PAGES) as address, httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        del client.headers["accept"]
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.get(path, headers=given | ({"accept": accept} if accept is not None else {}))


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("text/plain", "text"),
        ("text/*", "text"),
        ("application/json, */*", "text"),
        ("*/*, text/html", "text"),
        ("text/html;q=0.1, */*", "text"),
        (JSON, "v1beta1"),
        ("application/json;g=config.k8s.io;v=v1alpha1;as=Statusz", "v1alpha1"),
        ("application/json; v=v1beta1; g=config.k8s.io; as=Statusz, */*;q=0.1", "v1beta1"),
        (BROWSER, "html"),
        ("text/html", "html"),
        ("application/json", ""),
        ("application/json;v=v9;g=config.k8s.io;as=Statusz", ""),
        ("application/json;v=v1beta1;g=config.k8s.io;as=Other", ""),
        ("application/json;v=v1beta1;as=Statusz", ""),
        ("image/png", ""),
        ("*/*;q=0", ""),
        ("text/plain;q=x, ;;,=", ""),
    ],
)
def test_the_form_follows_the_accept_header(accept: str, form: str) -> None:
    assert statusz.wanted(accept, "Statusz", html=True) == form


@given(st.text(st.sampled_from("text/html*,;=q 01.a=Statuszv"), max_size=40))
def test_any_accept_header_has_its_form(accept: str) -> None:
    assert statusz.wanted(accept, "Statusz", html=True) in ("text", "html", "v1beta1", "v1alpha1", "")


async def test_whoever_asks_again_and_again_costs_no_more_than_one_who_looks() -> None:
    made: list[State] = []

    def state() -> State:
        made.append(WAITING)
        return WAITING

    pages = statusz.pages(state, {}, [])
    async with serving(pages) as address, httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        for path in ("/statusz", "/statusz/data") * 5:
            await client.get(path)
    assert len(made) == 1


def test_flags_have_no_page_for_browsers() -> None:
    assert statusz.wanted("text/html", "Flagz") == ""
    assert statusz.wanted(BROWSER, "Flagz") == "text"


async def test_statusz_is_text_as_components_of_kubernetes_have_it() -> None:
    found = await got("/statusz")
    assert found.headers["content-type"] == "text/plain; charset=utf-8"
    title, warning, blank, started, *rest = found.text.splitlines()
    assert title == "csi-provisioner statusz"
    assert warning.startswith("Warning: This endpoint is not meant to be machine parseable")
    assert blank == ""
    assert re.fullmatch(r"Started: \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d UTC \d{4}", started)
    assert rest == [
        "Up: 26 hr 11 min 40 sec",
        f"Python version: {platform.python_version()}",
        f"Binary version: {__version__}",
        "Paths: /flagz /livez /metrics /statusz",
    ]


async def test_statusz_is_json_of_either_version() -> None:
    found = await got("/statusz", JSON)
    assert found.headers["content-type"] == "application/json;g=config.k8s.io;v=v1beta1;as=Statusz"
    assert "warning" not in found.headers
    body = found.json()
    assert (body["kind"], body["apiVersion"]) == ("Statusz", "config.k8s.io/v1beta1")
    assert body["metadata"] == {"name": "csi-provisioner"}
    assert body["uptimeSeconds"] == 94_300
    assert body["paths"] == ["/flagz", "/livez", "/metrics", "/statusz"]
    old = await got("/statusz", JSON.replace("v1beta1", "v1alpha1"))
    assert old.json()["apiVersion"] == "config.k8s.io/v1alpha1"
    assert old.headers["warning"].startswith("299")


async def test_json_alone_is_not_acceptable() -> None:
    found = await got("/statusz", "application/json")
    assert found.status_code == 406
    assert found.json()["reason"] == "NotAcceptable"


async def test_flags_are_text_or_json() -> None:
    found = await got("/flagz")
    assert found.text.splitlines()[0] == "csi-provisioner flagz"
    assert found.text.splitlines()[2:] == ["csi-address=/csi/csi.sock", "v=5"]
    found = await got("/flagz", JSON.replace("Statusz", "Flagz"))
    assert found.json()["flags"] == {"csi-address": "/csi/csi.sock", "v": "5"}
    assert found.json()["kind"] == "Flagz"


async def test_a_browser_gets_the_page_and_its_parts() -> None:
    found = await got("/statusz", BROWSER)
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.text.startswith("<!doctype html>")
    assert "team-a/data-0" in found.text
    part = await got("/statusz/data", "text/html")
    assert part.text in found.text
    whole = (await got("/statusz/data")).json()
    assert (whole["version"], whole["complete"]) == (1, True)
    assert whole["state"]["details"]["waiting"][0]["name"] == "team-b/legacy"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "storage.example:8080"},
        {"host": ""},
        {"host": "[::1"},
        {"x_forwarded_for": "10.0.0.1"},
        {"x_forwarded_proto": "http"},
        {"via": "1.1 proxy"},
        {"x_envoy_decorator_operation": "x"},
    ],
    ids=["a name of somebody", "no name", "no address", "forwarded", "by a mesh", "by a proxy", "by envoy"],
)
async def test_who_does_not_come_from_within_the_pod_is_shown_no_names(headers: dict[str, str]) -> None:
    page = await got("/statusz", BROWSER, **headers)
    assert "team-a" not in page.text
    assert "kubectl port-forward" in page.text
    data = await got("/statusz/data", **headers)
    assert data.json()["complete"] is False
    assert "team-a" not in data.text
    flags = await got("/flagz", **headers)
    assert flags.status_code == 403
    assert "csi.sock" not in flags.text
    assert (await got("/statusz", **headers)).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:9", "[::1]:8080"])
async def test_names_of_this_machine_are_local(host: str) -> None:
    assert "team-a" in (await got("/statusz", BROWSER, host=host)).text
