"""The reference is what the code says, and leaves nothing of it out."""

import ast
import re
from pathlib import Path

import pytest

from csi_provisioner import gates
from csi_provisioner.commands import check, explain, orphans
from csi_provisioner.flags import FLAGS
from csi_provisioner.model import csi
from csi_provisioner.planning import wellknown
from sandbox.demo import _parser
from tests.docs import blocks, events, reference, words

WELLKNOWN = {value for name, value in vars(wellknown).items() if name.isupper() and "/" in value}
# Nothing that an object has: the prefix of parameters.
OURS = re.compile(r"csi-provisioner\.io/[a-z-]+")


@pytest.fixture(scope="module")
def text() -> str:
    return "".join(page.read_text() for page in reference.pages())


@pytest.mark.parametrize("page", reference.pages(), ids=lambda page: page.stem)
def test_a_page_is_what_the_code_makes_of_it(page: Path) -> None:
    assert page.read_text() == reference.made(page.read_text()), "python -m tests.docs.reference writes it"


def test_every_table_is_on_a_page(text: str) -> None:
    assert {match["name"] for match in reference.MADE.finditer(text)} == reference.TABLES.keys()


def test_every_variable_of_the_environment_is_there() -> None:
    patterns = [re.escape(name).replace(r"\.\.\.", "[A-Z]+") for name in reference.variables()]
    assert len(patterns) > 10
    known = words.ENVIRONMENT.keys()
    assert [name for name in patterns if not any(re.fullmatch(name, one) for one in known)] == []
    assert [one for one in known if not any(re.fullmatch(name, one) for name in patterns)] == []


def test_every_exit_code_is_there() -> None:
    used = {number for call, _ in events.calls()["Fatal"] for one in call.args[1:] for number in reference.numbers(one)}
    assert used < words.CODES.keys()


def test_every_gate_is_there() -> None:
    assert set(gates._KNOWN) == words.GATES.keys()


def test_every_name_that_objects_have_is_there(text: str) -> None:
    literals = {name for file in events.PRODUCT.rglob("*.py") for name in OURS.findall(file.read_text())}
    assert [name for name in sorted(WELLKNOWN | literals) if f"`{name}" not in text] == []


def test_every_capability_that_is_asked_for_is_there(text: str) -> None:
    known = {
        one.name for kind in (csi.ControllerServiceCapabilityRpcType, csi.PluginCapabilityServiceType) for one in kind
    }
    asked = {
        node.value
        for module in events.modules().values()
        for node in ast.walk(module)
        if isinstance(node, ast.Constant) and node.value in known
    }
    assert "CLONE_VOLUME" in asked
    assert [name for name in sorted(asked) if f"`{name}`" not in text] == []


def test_flags_that_pages_name_exist() -> None:
    """In running text; what stands in a block is run."""
    commands = {name for one in (check, explain, orphans) for name in one.FLAGS.known}
    others = {option[2:] for action in _parser()._actions for option in action.option_strings} | {"invalidation-mode"}
    named = {(page.name, flag) for page in blocks.pages() for flag in re.findall(r"`--([a-z][\w-]+)", page.read_text())}
    assert len(named) > 50
    assert {(page, flag) for page, flag in named if flag not in FLAGS.known.keys() | commands | others} == set()


def test_metrics_that_pages_name_exist() -> None:
    known = set(re.findall(r"^\| `(\w+)`", (reference.PAGES / "metrics.md").read_text(), re.MULTILINE))
    named = {
        (page.name, re.sub("_(bucket|count|sum)$", "", name))
        for page in blocks.pages()
        for name in re.findall(r"\bcsi_provisioner_\w*[a-z]\b", page.read_text())
    }
    assert len(named) > 20
    assert {(page, name) for page, name in named if name not in known} == set()
