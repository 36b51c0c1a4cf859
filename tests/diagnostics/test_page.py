"""The page for people: complete, self-contained, safe whatever the names are; a stranger learns no names from it."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from csi_provisioner.diagnostics import page, statusz
from csi_provisioner.model.state import Details, Failure, State, Task, WaitingClaim
from tests.diagnostics.pictures import CHROMIUM, SCHEMES, STATES, WAITING, WIDTHS, dom, take

VOID = {"meta"}
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202e'


class Reader(HTMLParser):
    """Tags in pairs, the text, and what would be loaded from elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [f"{name}={value}" for name, value in attrs if name in ("src", "href") or name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += f"{data}\n"


def read(state: State, *, local: bool = True) -> Reader:
    return Reader(page.whole(state, "1.2.3", local=local))


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("local", [True, False], ids=["local", "a stranger"])
def test_the_page_stands_alone(state: State, local: bool) -> None:
    found = read(state if local else statusz.for_strangers(state), local=local)
    assert found.loaded == []
    assert not re.search(r"url\(|@import|https?://(?!localhost)", page.STYLE + page.SCRIPT)
    for title in ("State", "Claims without a volume", "Oldest of them", "At work", "Last hour", "Queues",
                  "Recent failures", "Caches", "Volumes that may be lost"):  # fmt: skip
        assert f"{title}\n" in found.text
    assert ("kubectl port-forward" in found.text) != local


def test_the_page_tells_what_an_operator_looks_for() -> None:
    text = read(WAITING).text.replace(page.SPACE, " ")
    for part in ("csi-provisioner 1.2.3", "leading", "team-a/restore-of-last-night", "in 28 s", "23 h 53 min",
                 "VolumeSnapshot team-a/last-night is not ready", "no pool has 100Gi", "900 GiB", "Lanes",
                 "VolumeSnapshot", "96 volumes, 2 of",
                 "csi-provisioner orphans", "in the last hour", "1309"):  # fmt: skip
        assert part in text, part
    away = read(STATES["away"]).text.replace(page.SPACE, " ")
    assert "no, for 12 min 34 s" in away
    assert "create persistentvolumes" in read(STATES["rights"]).text


def test_markup_in_names_is_text() -> None:
    state = msgspec.structs.replace(
        WAITING,
        driver=msgspec.structs.replace(WAITING.driver, name=EVIL),
        failures=(Failure("claims", EVIL, EVIL, 1.0),),
        details=Details(tasks=(Task("claims", EVIL, 1.0),), waiting=(WaitingClaim(EVIL, EVIL, "call", 1.0),)),
    )
    found = read(state)
    assert found.tags <= {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "span", "main",
                          "section", "ul", "li", "dl", "dt", "dd", "div", "table", "thead", "tbody", "tr", "th", "td",
                          "footer", "script", "figure", "figcaption", "b", "svg", "rect"}  # fmt: skip
    assert found.loaded == []
    assert found.text.count("<script>alert(1)</script>") >= 5
    assert "\u202e" not in found.text


def test_a_stranger_is_told_counts_ages_and_reasons_but_no_names_and_no_messages() -> None:
    seen = statusz.for_strangers(WAITING)
    words = " ".join(strings(json.loads(msgspec.json.encode(seen)))) + read(seen, local=False).text
    for secret in ("team-a", "data-0", "last-night", "uid-", "no pool", "csi-controller", "storage/", "node-a"):
        assert secret not in words, secret
    assert seen.pending == WAITING.pending
    assert seen.details is not None
    assert WAITING.details is not None
    assert [claim.age for claim in seen.details.waiting] == [claim.age for claim in WAITING.details.waiting]
    assert seen.details.rates == WAITING.details.rates
    assert "96" in read(seen, local=False).text


def test_the_page_reads_the_state_and_nothing_else() -> None:
    imported = re.findall(r"^from csi_provisioner\.(\S+) import (\S+)", Path(page.__file__).read_text(), re.MULTILINE)
    assert {module for module, _ in imported} == {"diagnostics", "logs", "model.state"}
    assert ("diagnostics", "health") in imported


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_000, "1 d 1 h"), (-1, "0 s"), (None, "")],
)
def test_times_are_as_people_say_them(seconds: float | None, text: str) -> None:
    assert page.span(seconds).replace(page.SPACE, " ") == text


# ---- in a browser


MEASURE = "<script>document.title = `${document.documentElement.scrollWidth} of ${innerWidth}`</script></body>"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="NOT RUN: there is no chromium")
@pytest.mark.parametrize("state", STATES)
def test_nothing_is_wider_than_the_window_of_a_phone(state: str, tmp_path: Path) -> None:
    html = page.whole(STATES[state], "1", local=True).replace(page.POLICY, "").replace("</body>", MEASURE)
    found = dom({"/statusz": html}, tmp_path, seconds=1, width=400)
    measured = re.search("<title>([0-9]+) of ([0-9]+)</title>", found)
    assert measured is not None
    assert int(measured[1]) <= int(measured[2]) <= 500


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="NOT RUN: there is no chromium")
def test_a_picture_is_light_or_dark_as_the_reader_likes(tmp_path: Path) -> None:
    pictures = []
    for scheme, number in SCHEMES.items():
        take(
            page.whole(STATES["idle"], "1", local=True), tmp_path / f"{scheme}.png", width=WIDTHS["400"], scheme=number
        )
        pictures.append((tmp_path / f"{scheme}.png").read_bytes())
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="NOT RUN: there is no chromium")
def test_a_browser_runs_no_markup_of_others_and_the_page_keeps_itself_fresh(tmp_path: Path) -> None:
    evil = msgspec.structs.replace(WAITING, details=Details(waiting=(WaitingClaim(EVIL, "", "call", 1.0),)))
    pages = {"/statusz": page.whole(evil, "1", local=True), "/statusz/data": '<p id="fresh">fresh</p>'}
    found = dom(pages, tmp_path, seconds=8)
    assert '<p id="fresh">fresh</p>' in found
    assert "live" in found
    assert "<img" not in dom({"/statusz": pages["/statusz"]}, tmp_path, seconds=1)
