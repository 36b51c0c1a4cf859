"""Messages against protobuf's own implementation, both ways, and what a newer driver may send."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import betterproto2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi_provisioner.csi import wire
from csi_provisioner.model import csi
from csi_provisioner.model.csi.csi.v1 import others
from tests import protobuf

TEXT = st.text(max_size=8)
MAPS = st.dictionaries(TEXT, TEXT, max_size=3)
INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))
TOPOLOGIES = st.lists(st.builds(csi.Topology, segments=MAPS), max_size=3)
CAPABILITIES = st.builds(
    csi.VolumeCapability,
    mount=st.none()
    | st.builds(
        csi.VolumeCapabilityMountVolume,
        fs_type=TEXT,
        mount_flags=st.lists(TEXT, max_size=3),
        volume_mount_group=TEXT,
    ),
    access_mode=st.none()
    | st.builds(csi.VolumeCapabilityAccessMode, mode=st.sampled_from(csi.VolumeCapabilityAccessModeMode)),
)
SOURCES = st.one_of(
    st.builds(csi.VolumeContentSource, snapshot=st.builds(csi.VolumeContentSourceSnapshotSource, snapshot_id=TEXT)),
    st.builds(csi.VolumeContentSource, volume=st.builds(csi.VolumeContentSourceVolumeSource, volume_id=TEXT)),
)
MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "CreateVolumeRequest": st.builds(
        csi.CreateVolumeRequest,
        name=TEXT,
        capacity_range=st.none() | st.builds(csi.CapacityRange, required_bytes=INT64, limit_bytes=INT64),
        volume_capabilities=st.lists(CAPABILITIES, max_size=2),
        parameters=MAPS,
        secrets=MAPS,
        volume_content_source=st.none() | SOURCES,
        accessibility_requirements=st.none()
        | st.builds(csi.TopologyRequirement, requisite=TOPOLOGIES, preferred=TOPOLOGIES),
        mutable_parameters=MAPS,
    ),
    "CreateVolumeResponse": st.builds(
        csi.CreateVolumeResponse,
        volume=st.none()
        | st.builds(
            csi.Volume,
            capacity_bytes=INT64,
            volume_id=TEXT,
            volume_context=MAPS,
            content_source=st.none() | SOURCES,
            accessible_topology=TOPOLOGIES,
        ),
    ),
    "GetCapacityResponse": st.builds(
        csi.GetCapacityResponse,
        available_capacity=INT64,
        maximum_volume_size=st.none() | INT64,
        minimum_volume_size=st.none() | INT64,
    ),
    "ProbeResponse": st.builds(csi.ProbeResponse, ready=st.none() | st.booleans()),
    "CreateSnapshotResponse": st.builds(
        csi.CreateSnapshotResponse,
        snapshot=st.builds(
            csi.Snapshot,
            size_bytes=INT64,
            snapshot_id=TEXT,
            creation_time=st.none() | TIMES,
            ready_to_use=st.booleans(),
        ),
    ),
    "ListVolumesRequest": st.builds(csi.ListVolumesRequest, max_entries=st.integers(-(2**31), 2**31 - 1)),
}


@pytest.mark.parametrize("name", MESSAGES)
@given(data=st.data())
@settings(max_examples=60)
def test_both_implementations_say_the_same(name: str, data: st.DataObject) -> None:
    ours = data.draw(MESSAGES[name])
    encoded = wire.encode(ours)
    assert encoded == bytes(ours)
    theirs = protobuf.message(name).FromString(encoded)
    assert wire.decode(theirs.SerializeToString(), type(ours)) == ours


@pytest.mark.parametrize("name", ["CreateVolumeRequest", "CreateVolumeResponse"])
@given(data=st.data())
@settings(max_examples=30)
def test_a_message_that_comes_in_parts_is_merged_alike(name: str, data: st.DataObject) -> None:
    first, second = data.draw(MESSAGES[name]), data.draw(MESSAGES[name])
    parts = wire.encode(first) + wire.encode(second)
    theirs = protobuf.message(name).FromString(parts)
    whole = wire.decode(parts, type(first))
    assert protobuf.message(name).FromString(wire.encode(whole)) == theirs


@given(st.binary(max_size=40))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    with suppress(ValueError):  # UnicodeDecodeError is one
        wire.decode(data, csi.CreateVolumeResponse)


def test_every_message_has_its_tables() -> None:
    classes = [
        kind for kind in vars(others).values() if isinstance(kind, type) and issubclass(kind, betterproto2.Message)
    ]
    assert len(classes) > 50
    for kind in classes:
        assert wire.decode(wire.encode(kind()), kind) == kind()


@given(data=st.data())
@settings(max_examples=30)
def test_fields_of_a_newer_driver_are_harmless(data: st.DataObject) -> None:
    # A message of another kind, from a message's point of view: fields without a name here, and other types.
    newer = data.draw(st.one_of(*MESSAGES.values()))
    theirs = protobuf.message(type(newer).__name__).FromString(wire.encode(newer)).SerializeToString()
    assert wire.decode(theirs, csi.DeleteVolumeResponse) == csi.DeleteVolumeResponse()
    wire.decode(theirs, csi.PluginCapabilityService)


@pytest.mark.parametrize("tail", [b"\xf9\x07" + b"x" * 8, b"\xfd\x07" + b"x" * 4, b"\xf8\x07\x01", b"\xfa\x07\x01x"])
def test_unknown_fields_of_every_wire_type_are_skipped(tail: bytes) -> None:
    # Field 127, as a fixed64, a fixed32, a varint and a string.
    theirs = protobuf.message("Volume")(volume_id="v").SerializeToString()
    assert wire.decode(tail + theirs + tail, csi.Volume) == csi.Volume(volume_id="v")


@pytest.mark.parametrize("number", [77, 2**31 - 1, -1])
def test_values_of_a_newer_enum_are_kept_as_numbers(number: int) -> None:
    theirs = protobuf.message("PluginCapability")(service={"type": number})
    ours = wire.decode(theirs.SerializeToString(), csi.PluginCapability)
    assert ours.service is not None
    assert (ours.service.type, ours.service.type.name) == (number, "")
    assert wire.encode(ours) == theirs.SerializeToString()


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x5a\x00" * 120_000, id="unknown"),
        pytest.param(
            wire.encode(csi.CreateVolumeResponse(volume=csi.Volume(accessible_topology=[csi.Topology()] * 120_000))),
            id="within",
        ),
    ],
)
def test_more_fields_than_any_message_has_are_no_message(message: bytes) -> None:
    """4 MiB hold two million, with which the loop would do nothing else for seconds."""
    with pytest.raises(ValueError, match="more than 100000 fields"):
        wire.decode(message, csi.CreateVolumeResponse)
