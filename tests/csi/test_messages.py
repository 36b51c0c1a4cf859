"""The generated messages are those of the tables in docs/spec/csi-wire.md: every number, name and enum value."""

import dataclasses
import enum
import re
from pathlib import Path

import pytest

from csi_provisioner.model import csi

SPEC = (Path(__file__).parent.parent.parent / "docs" / "spec" / "csi-wire.md").read_text()
SECTIONS = dict(re.findall(r"^#### message (\S+)\n(.*?)(?=^####|\Z)", SPEC, re.M | re.S))


@pytest.mark.parametrize("message", SECTIONS)
def test_a_message_has_the_fields_of_its_table(message: str) -> None:
    wanted = {int(number): name for number, name in re.findall(r"^\| (\d+) \| (\w+) \|", SECTIONS[message], re.M)}
    cls = getattr(csi, message.replace(".", "").replace("RPC", "Rpc"))
    found = {field.metadata["betterproto"].number: field.name for field in dataclasses.fields(cls)}
    assert found == wanted
    for name, values in re.findall(r"^enum (\w+): (.*?)(?: \(|$)", SECTIONS[message], re.M):
        kind: type[enum.IntEnum] = getattr(csi, f"{cls.__name__}{name}")
        expected = {value.split(" = ")[0]: int(value.split(" = ")[1]) for value in values.split(", ")}
        assert {value.name: value.value for value in kind} == expected
