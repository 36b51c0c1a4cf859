"""The reference is what the code says, and leaves nothing of it out."""

import ast
import re
from pathlib import Path

import pytest

from csi_provisioner import gates
from csi_provisioner.model import csi
from csi_provisioner.planning import wellknown
from tests.docs import events, reference, words

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
