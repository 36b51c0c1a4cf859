"""What version 1 of the program has written into clusters stays readable: recorded once, never to be written anew."""

import json
from pathlib import Path

import pytest

from csi_provisioner.csi import wire
from csi_provisioner.model import csi
from csi_provisioner.planning import entries, leftover

RECORDED = json.loads((Path(__file__).parent / "recorded-1.json").read_text())
DRIVER = "sandbox.csi.example.com"


@pytest.mark.parametrize("form", ["journal-entries", "journal-entries, compressed"])
def test_a_recorded_journal_is_read(form: str) -> None:
    texts = entries.unpack(RECORDED[form])
    found = {name: entries.understood(text, DRIVER) for name, text in texts.items()}
    assert None not in found.values()
    [(name, entry)] = [(name, entry) for name, entry in found.items() if entry and entry.claim.name == "restored"]
    assert entry is not None
    assert name == f"pvc-{entry.claim.uid}"
    assert (entry.storage_class, entry.reclaim_policy, entry.migrated) == ("fast", "Delete", False)
    assert entry.source == entries.SourceName("VolumeSnapshot", "default", "before")
    assert entry.secret is not None
    assert (entry.secret.namespace, entry.secret.name) == ("default", "login")
    request = wire.decode(entry.request, csi.CreateVolumeRequest)
    assert (request.name, request.secrets) == (name, {})
    assert request.volume_content_source is not None
    assert request.parameters["type"] == "ssd"


def test_a_recorded_entry_is_written_back_as_it_was() -> None:
    texts = entries.unpack(RECORDED["journal-entries"])
    again = {name: entries.encode(entry) for name, text in texts.items() if (entry := entries.understood(text, DRIVER))}
    assert entries.pack(again) == RECORDED["journal-entries"]


def test_recorded_leftovers_are_read() -> None:
    (dropped, suspect), strange = leftover.understood(entries.unpack(RECORDED["dropped"]), DRIVER)
    assert strange == 0
    assert (dropped.kind, dropped.volume_id, dropped.claim) == ("dropped", "vol-1", "default/data")
    assert dropped.spec is not None
    assert dropped.spec.csi is not None
    assert dropped.spec.csi.volumeAttributes == {"share": "a"}
    assert (suspect.kind, suspect.volume_id, suspect.reason) == ("suspect", "", "it could not be used")
