"""A command asked in a cluster of the sandbox, on virtual time."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from csi_provisioner.commands import orphans
from csi_provisioner.csi import wire
from csi_provisioner.logs import log
from csi_provisioner.model import csi
from csi_provisioner.planning import entries, leftover
from csi_provisioner.planning.entries import ClaimName, Entry
from csi_provisioner.planning.leftover import Leftover
from csi_provisioner.provision.journal_leases import ENTRIES
from sandbox.driver.state import Wanted
from tests.installation import CLAIM, NAMESPACE, VOLUME, Installation, anyio_backend, site

__all__ = ["anyio_backend", "site"]

LEASE = "sandbox-csi-example-com"
DROPPED = f"{LEASE}-dropped"
WHEN = 1_750_000_000
UID = "0d9f5c1e-3e2b-4a55-9f5a-7c6b7f0a1d11"


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    @property
    def orphans(self) -> list[dict[str, Any]]:
        return list(self.json["orphans"])


class Storage:
    """The installation, and what stands in its Leases."""

    def __init__(self, site: Installation) -> None:
        self.site = site

    def lease(self, name: str, annotation: str, value: str) -> None:
        metadata = {"name": name, "annotations": {annotation: value}}
        self.site.objects.create("Lease", {"metadata": metadata}, NAMESPACE)

    def entry(self, uid: str = UID, lease: str = f"{LEASE}-journal-00", **fields: Any) -> str:
        """An entry of the journal; the name of its volume."""
        name = f"pvc-{uid}"
        mode = csi.VolumeCapabilityAccessMode(mode=csi.VolumeCapabilityAccessModeMode.MULTI_NODE_MULTI_WRITER)
        mount = csi.VolumeCapabilityMountVolume(fs_type="xfs")
        request = csi.CreateVolumeRequest(
            name=name,
            capacity_range=csi.CapacityRange(required_bytes=3 << 30),
            volume_capabilities=[csi.VolumeCapability(mount=mount, access_mode=mode)],
        )
        given: dict[str, Any] = {
            "v": 1,
            "driver": self.site.config.name,
            "claim": ClaimName(NAMESPACE, "data", uid),
            "storage_class": "fast",
            "reclaim_policy": "Delete",
            "request": wire.encode(request),
            "when": WHEN,
        }
        self.lease(lease, ENTRIES, entries.pack({name: entries.encode(Entry(**given | fields))}))
        return name

    def leftover(
        self, volume_id: str, name: str = "pvc-lost", *, lease: str = f"{LEASE}-dropped", **fields: Any
    ) -> None:
        given: dict[str, Any] = {"kind": "dropped", "driver": self.site.config.name, "when": WHEN, "reason": "so"}
        news = Leftover(volume_id=volume_id, name=name, claim=f"{NAMESPACE}/data", **given | fields)
        known = self.site.objects.find("Lease", lease, NAMESPACE)
        if known is None:
            self.lease(lease, leftover.DROPPED, entries.pack(leftover.added({}, [news])))
            return
        texts = leftover.added(leftover.read(known["metadata"]["annotations"]), [news])
        change = {leftover.DROPPED: entries.pack(texts)}
        self.site.objects.edit(
            "Lease", lease, NAMESPACE, change=lambda found: found["metadata"]["annotations"].update(change)
        )

    def made(self, name: str, **parameters: str) -> str:
        """A volume in the backend; its id."""
        given = {key.replace("__", "/").replace("_", "."): value for key, value in parameters.items()}
        return self.site.driver.state.create_volume(Wanted(name, 1 << 30, parameters=given)).id

    def volume(self, name: str, handle: str) -> None:
        """A PersistentVolume."""
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": self.site.config.name, "volumeHandle": handle},
        }
        self.site.objects.create(VOLUME, {"metadata": {"name": name}, "spec": spec})

    def owned(self, count: int) -> None:
        """So many volumes with their PersistentVolumes."""
        for number in range(count):
            self.volume(f"own-{number}", self.made(f"own-{number}"))

    def claim(self) -> str:
        """A claim that waits; the name of its volume."""
        self.site.claim("data", "none")
        return f"pvc-{self.site.get(CLAIM, 'data')['metadata']['uid']}"


@pytest.fixture
def storage(site: Installation) -> Storage:
    return Storage(site)


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
def ask(site: Installation, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The command with these flags, and `-o json` if it is not told otherwise."""
    monkeypatch.setattr(log, "quiet", True)

    async def ask_(*flags: str, json: bool = True) -> Answer:
        if not any(flag.startswith("--csi-address") for flag in flags):
            flags = (f"--csi-address={site.cluster.socket(site.config)}", *flags)
        everything = [f"--kubeconfig={tmp_path / 'kubeconfig'}", "--leader-election-namespace=default", *flags]
        command = orphans.COMMAND
        asked = command.read([*everything, *(["-ojson"] if json else [])], {"NODE_NAME": "node-7"}, orphans.wanted)
        code = asked if isinstance(asked, int) else await command.answered(orphans.answer, *asked)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return ask_
