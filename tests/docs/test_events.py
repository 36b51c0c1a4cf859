"""What people read about an event is there for every event that the program can write."""

import re

from tests.docs import blocks, events

PAGE = events.ROOT / "docs" / "how-to" / "debugging.md"


def test_texts_are_read_from_the_code() -> None:
    warnings = events.warnings()
    for some in (
        "ProvisioningFailed: ... cannot be the source of claim ...: the snapshot is being deleted",
        "ProvisioningFailed: driver ... could not create the volume: ...",
        "VolumeShared: the driver gave it volume ..., which ... has already: both have the same data; "
        "ask the driver's makers",
        "ProvisioningFailed: error generating accessibility requirements: selected node ... lacks the label ...: "
        "driver ... registered the topology keys ... in its CSINode, and the node has ...; kubelet sets these labels "
        "when the driver registers: restart the driver's node plugin on that node, or set the label again if somebody "
        "removed it",
    ):
        assert some in warnings
    assert not any("does not exist; create it" in line for line in warnings), "a class that is missing has no event"
    assert {line.partition(": ")[0] for line in warnings} == {
        "DriverUnavailable",
        "ProvisioningFailed",
        "VolumeDropped",
        "VolumeFailedDelete",
        "VolumeLeftOver",
        "VolumeShared",
    }


def test_every_warning_has_its_section() -> None:
    """Blocks `text warning` have each of them, as `python -m tests.docs.events` prints them; lines may be broken."""
    shown = "".join(block.text for block in blocks.blocks(PAGE) if block.kind == "text warning")
    told = [" ".join(line.split()) for line in re.sub(r"\n\s+", " ", shown).splitlines()]
    written = events.warnings()
    assert [line for line in written if line not in told] == [], "not on the page"
    assert [line for line in told if line not in written] == [], "not in the program"
