"""The log's formats and levels (process.md 9.1)."""

import json
import logging
import re
import time
from types import SimpleNamespace

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from csi_provisioner import logs
from csi_provisioner.logs import configure, log
from csi_provisioner.settings import LogSettings


@pytest.fixture(autouse=True)
def _plain_afterwards() -> object:
    yield
    configure(LogSettings())


def test_a_text_line_has_the_form_of_klog(capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.1."""
    configure(LogSettings())
    log.info("Made {a} volume", pvc="ns/a", n=3, ratio=0.5, ok=True, none=None, tags=["a", "b"])
    assert re.fullmatch(
        r"I\d{4} \d\d:\d\d:\d\d\.\d{6} [ \d]{6}\d test_logs\.py:\d+\] "
        r'"Made \{a\} volume" pvc="ns/a" n=3 ratio=0\.5 ok=true none=null tags=\["a","b"\]\n',
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(("method", "letter"), [("info", "I"), ("warning", "W"), ("error", "E"), ("fatal", "F")])
def test_the_first_letter_is_the_severity(capsys: pytest.CaptureFixture[str], method: str, letter: str) -> None:
    """process.md 9.1."""
    configure(LogSettings())
    getattr(log, method)("x")
    assert capsys.readouterr().err.startswith(letter)


def test_one_entry_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.1."""
    configure(LogSettings())
    log.warning('a\n"b"', err=ValueError("c\nd"))
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.endswith('] "a\\n\\"b\\"" err="c\\nd"\n')


def test_a_json_line_has_the_keys_of_kubernetes(capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.1."""
    configure(LogSettings(json=True, verbosity=4))
    log.v(4, "Made", pvc="ns/a", n=3, nested={"a": [1]}, err=ValueError("no"))
    line = json.loads(capsys.readouterr().err)
    assert abs(line.pop("ts") / 1000 - time.time()) < 60
    assert re.fullmatch(r"test_logs\.py:\d+", line.pop("caller"))
    assert line == {"msg": "Made", "v": 4, "pvc": "ns/a", "n": 3, "nested": {"a": [1]}, "err": "no"}


@pytest.mark.parametrize(
    ("method", "keys", "has_v"),
    [
        ("info", {}, True),
        ("warning", {}, True),
        ("warning", {"err": "no"}, False),
        ("error", {}, False),
        ("error", {"err": "no"}, False),
        ("fatal", {}, False),
    ],
)
def test_json_verbosity_is_absent_for_failures(
    capsys: pytest.CaptureFixture[str], method: str, keys: dict[str, str], has_v: bool
) -> None:
    """process.md 9.1."""
    configure(LogSettings(json=True))
    getattr(log, method)("x", **keys)
    assert ("v" in json.loads(capsys.readouterr().err)) is has_v


# What moves a cursor, clears a screen, begins a line of its own for some reader, or turns the reading round.
CONTROLS = "\0\a\b\t\n\v\f\r\x1b[2J\x7f\x85\x9b\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069"


@pytest.mark.parametrize("json_format", [False, True])
def test_text_of_others_cannot_forge_lines_or_steer_a_terminal(
    capsys: pytest.CaptureFixture[str], json_format: bool
) -> None:
    configure(LogSettings(json=json_format))
    log.error(f"m{CONTROLS}", err=ValueError(CONTROLS), nested=[{CONTROLS: CONTROLS}], good="größer \u4e2d \U0001f4be")
    written = capsys.readouterr().err
    assert not set(written.removesuffix("\n")) & set(CONTROLS) - set("[2J")
    assert "größer \u4e2d \U0001f4be" in written
    if json_format:
        line = json.loads(written)
        assert (line["msg"], line["err"], line["nested"]) == (f"m{CONTROLS}", CONTROLS, [{CONTROLS: CONTROLS}])


@pytest.mark.parametrize("json_format", [False, True])
def test_nor_can_a_message_within_a_traceback(capsys: pytest.CaptureFixture[str], json_format: bool) -> None:
    configure(LogSettings(json=json_format))
    forged = f"first\nE0102 03:04:05.000000       1 a.py:1] forged{CONTROLS}"

    def fail() -> None:
        raise OSError(forged) from ExceptionGroup(forged, [ValueError(forged)])

    try:
        fail()
    except OSError:
        log.exception("Unexpected", key="a")
    written = capsys.readouterr().err
    assert not set(written) & set(CONTROLS) - set("[2J\n")
    trace = json.loads(written)["stacktrace"] if json_format else written
    assert [line for line in trace.splitlines() if line.lstrip(" |+-").startswith("E0102")] == []
    assert "first\\nE0102" in trace
    assert any(line.endswith("in fail") for line in trace.splitlines())
    assert "\n\nThe above exception was the direct cause of the following exception:\n\n" in trace


def test_a_defect_is_a_failure_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.1."""
    configure(LogSettings(json=True))
    try:
        int("wrong")
    except ValueError:
        log.exception("Unexpected")
    line = json.loads(capsys.readouterr().err)
    assert line["err"].startswith("ValueError(")
    assert "v" not in line


@pytest.mark.parametrize("json_format", [False, True])
def test_objects_are_their_names(capsys: pytest.CaptureFixture[str], json_format: bool) -> None:
    """process.md 9.1."""
    configure(LogSettings(json=json_format))
    claim = SimpleNamespace(metadata=SimpleNamespace(namespace="ns", name="a"), data="hidden")
    volume = SimpleNamespace(metadata=SimpleNamespace(namespace=None, name="pv"))
    log.info("x", claim=claim, volume=volume, both=[claim])
    written = capsys.readouterr().err
    assert '"ns/a"' in written
    assert '"pv"' in written
    assert '["ns/a"]' in written
    assert "hidden" not in written


def test_an_object_or_a_reference_to_one_has_its_uid_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.2."""
    configure(LogSettings())
    claim = SimpleNamespace(metadata=SimpleNamespace(namespace="ns", name="a", uid="u-1"))
    reference = SimpleNamespace(namespace=None, name="pv", uid="u-2")
    log.info("x", PVC=claim, PV=reference, n=1, new=SimpleNamespace(metadata=SimpleNamespace(name="b", uid="")))
    assert capsys.readouterr().err.endswith('"x" PVC="ns/a" PVCUID="u-1" PV="pv" PVUID="u-2" n=1 new="b"\n')


async def test_a_task_says_on_every_line_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 9.2."""
    configure(LogSettings())

    async def work(name: str) -> None:
        log.about(PVC=name)
        await trio.lowlevel.checkpoint()
        log.info("Working", n=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, "ns/a")
        nursery.start_soon(work, "ns/b")
    log.info("Done")
    said = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert sorted(said) == ['"Done"', '"Working" PVC="ns/a" n=1', '"Working" PVC="ns/b" n=1']


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        (LogSettings(), {0}),
        (LogSettings(verbosity=3), {0, 1, 2, 3}),
        (LogSettings(modules=(("test_logs", 2),)), {0, 1, 2}),
        (LogSettings(modules=(("test_*", 2),)), {0, 1, 2}),
        (LogSettings(modules=(("*/tests/test_log?", 2),)), {0, 1, 2}),
        (LogSettings(modules=(("other", 9), ("*", 1))), {0, 1}),
        (LogSettings(modules=(("logs", 9),)), {0}),
        (LogSettings(verbosity=2, modules=(("test_logs", 1),)), {0, 1, 2}),
    ],
)
def test_verbosity_and_modules_decide_what_is_logged(
    capsys: pytest.CaptureFixture[str], settings: LogSettings, levels: set[int]
) -> None:
    """process.md 9.1."""
    configure(settings)
    for level in range(6):
        log.v(level, "x", level=level)
        assert log.v_enabled(level) is (level in levels)
    log.warning("always")
    written = capsys.readouterr().err
    assert {int(level) for level in re.findall(r"level=(\d)", written)} == levels
    assert "always" in written


def test_a_defect_comes_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings())
    try:
        int("wrong")
    except ValueError:
        log.exception("Unexpected", key="a")
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("E")
    assert first.endswith('"Unexpected" key="a"')
    assert rest[-1] == "ValueError: invalid literal for int() with base 10: 'wrong'"


def test_library_warnings_are_not_lost_and_come_once(capsys: pytest.CaptureFixture[str]) -> None:
    """process.md 14."""
    configure(LogSettings(verbosity=9))
    configure(LogSettings(verbosity=9))
    logging.getLogger("httpx2").debug("token abc")
    logging.getLogger("httpx2").warning("retrying %s", "now")
    logging.getLogger("grpclib").error("lost", exc_info=ValueError("why"))
    retried, lost = capsys.readouterr().err.splitlines()
    assert retried.startswith("W")
    assert retried.endswith('"retrying now" logger="httpx2"')
    assert lost.startswith("E")
    assert "why" in lost


@given(st.text(st.one_of(st.characters(exclude_categories=()), st.sampled_from('"\\\n\x7f\u2028é a'))))
@settings(max_examples=200)
def test_a_text_is_quoted_as_in_json(text: str) -> None:
    assert logs._quoted(text) == json.dumps(text, ensure_ascii=False)
