"""The driver's storage: which volumes and snapshots exist, where they lie and what room is left.

Everything is decided here, in plain functions over plain data, and nothing waits: one call is one step, so two calls
for the same name cannot both make a volume. Messages are translated by `controller`, folders are kept by `disk`. The
rules are those of the Container Storage Interface: create is idempotent by name, the same name for something else is
ALREADY_EXISTS, a size that cannot be had is OUT_OF_RANGE, delete of what is not there succeeds.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from sandbox.driver.config import Config
from sandbox.driver.disk import Disk

VOLUMES, SNAPSHOTS = "volumes", "snapshots"


class Refused(Exception):  # noqa: N818 - it is an answer, not an error
    """A call that the driver answers with a gRPC status; `code` is the status's name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Wanted(msgspec.Struct, frozen=True):
    """A volume as asked for. `source` is the id of a snapshot or a volume, `segments` are topologies in order of
    preference.
    """

    name: str
    required: int = 0
    limit: int = 0
    block: bool = False
    parameters: dict[str, str] = {}
    mutable_parameters: dict[str, str] = {}
    source_snapshot: str = ""
    source_volume: str = ""
    segments: tuple[dict[str, str], ...] = ()


class Volume(msgspec.Struct, frozen=True):
    serial: int  # order of creation, which is the order of lists
    id: str
    name: str
    size: int
    segment: dict[str, str]
    block: bool = False
    parameters: dict[str, str] = {}
    mutable_parameters: dict[str, str] = {}
    source_snapshot: str = ""
    source_volume: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    serial: int
    id: str
    name: str
    size: int
    volume: str
    created: float


Item = TypeVar("Item", Volume, Snapshot)


class State:
    """All volumes and snapshots by id. With a disk they outlive the process; without, they are only remembered."""

    def __init__(self, config: Config, disk: Disk | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._config = config
        self._disk = disk
        self._now = now
        self.volumes = {v.id: v for v in disk.load(VOLUMES, Volume)} if disk else {}
        self.snapshots = {s.id: s for s in disk.load(SNAPSHOTS, Snapshot)} if disk else {}
        self.published: dict[str, tuple[str, ...]] = {}  # nodes by volume, for tests to fill: nothing is mounted here
        self._volume_names = {v.name: v.id for v in self.volumes.values()}
        self._snapshot_names = {s.name: s.id for s in self.snapshots.values()}
        self._serial = max(
            [
                0,
                *(volume.serial for volume in self.volumes.values()),
                *(snap.serial for snap in self.snapshots.values()),
            ]
        )
        # room taken, kept beside the volumes so that a create does not add up all of them
        self._used = [0] * len(config.pools)
        for volume in self.volumes.values():
            self._used[self._pool_of(volume)] += volume.size

    # -- volumes

    def volume(self, id_: str) -> Volume:
        if not id_:
            raise Refused("INVALID_ARGUMENT", "a volume id is required")
        if id_ not in self.volumes:
            raise Refused("NOT_FOUND", f"there is no volume {id_}")
        return self.volumes[id_]

    def volume_named(self, name: str) -> Volume | None:
        id_ = self._volume_names.get(name)
        return self.volumes[id_] if id_ else None

    def create_volume(self, wanted: Wanted) -> Volume:
        # Before the look at what exists: csi-sanity wants NOT_FOUND for a source that is not there.
        source = self._source(wanted)
        existing = self.volume_named(wanted.name)
        if existing:
            # A retry gets the same volume. Whoever wants another one under its name is told so.
            _check_same(existing, wanted)
            return existing
        self._check_mutable(wanted.mutable_parameters)
        size = self._size(wanted, source.size if source else 0)
        pool = self._room(size, wanted.segments)
        volume = Volume(
            serial=self._next(),
            id=f"vol-{wanted.name}" if self._config.ids_of_names else f"vol-{uuid.uuid4().hex}",
            name=wanted.name,
            size=size,
            segment=self._config.pools[pool].segment,
            block=wanted.block,
            parameters=wanted.parameters,
            mutable_parameters=wanted.mutable_parameters,
            source_snapshot=wanted.source_snapshot,
            source_volume=wanted.source_volume,
        )
        if self._disk:
            # The folder comes first: if the disk is full, nothing is remembered that is not there.
            kind = VOLUMES if wanted.source_volume else SNAPSHOTS
            self._disk.create(VOLUMES, volume.id, volume, copy_of=(kind, source.id) if source else None)
        self.volumes[volume.id] = volume
        self._volume_names[volume.name] = volume.id
        self._used[pool] += size
        return volume

    def delete_volume(self, id_: str) -> None:
        if not id_:
            raise Refused("INVALID_ARGUMENT", "a volume id is required")
        if id_ not in self.volumes:
            return
        if self._disk:
            self._disk.remove(VOLUMES, id_)
        volume = self.volumes.pop(id_)
        del self._volume_names[volume.name]
        self._used[self._pool_of(volume)] -= volume.size

    def expand_volume(self, id_: str, required: int, limit: int) -> Volume:
        volume = self.volume(id_)
        # It is that large already: a retry of an expansion succeeds without another one.
        if required <= volume.size and not (limit and volume.size > limit):
            return volume
        pool = self._pool_of(volume)
        # Its own bytes count as room: it grows in place.
        largest = min(self._config.pools[pool].largest_volume, volume.size + self._free(pool))
        if required > largest or (limit and limit < max(required, volume.size)):
            raise Refused("OUT_OF_RANGE", f"volume {id_} of {volume.size} bytes cannot become {required} bytes")
        self._used[pool] += required - volume.size
        return self._replace(msgspec.structs.replace(volume, size=required))

    def modify_volume(self, id_: str, parameters: Mapping[str, str]) -> Volume:
        volume = self.volume(id_)
        self._check_mutable(parameters)
        return self._replace(
            msgspec.structs.replace(volume, mutable_parameters=volume.mutable_parameters | dict(parameters))
        )

    def capacity(self, segment: Mapping[str, str]) -> tuple[int, int]:
        """Bytes left in the pools that this segment reaches, and the largest volume that could be made there."""
        # An empty segment asks for the whole cluster, which every pool is part of.
        pools = [pool for pool in range(len(self._used)) if _reaches(segment, self._config.pools[pool].segment)]
        largest = (min(self._free(pool), self._config.pools[pool].largest_volume) for pool in pools)
        return sum(map(self._free, pools)), max(largest, default=0)

    # -- snapshots

    def create_snapshot(self, name: str, volume_id: str) -> Snapshot:
        if not name:
            raise Refused("INVALID_ARGUMENT", "a snapshot name is required")
        volume = self.volume(volume_id)
        existing = self._snapshot_names.get(name)
        if existing:
            # Idempotent by name, as for volumes.
            if self.snapshots[existing].volume != volume_id:
                raise Refused("ALREADY_EXISTS", f"snapshot {name} is of another volume")
            return self.snapshots[existing]
        id_ = f"snap-{uuid.uuid4().hex}"
        snapshot = Snapshot(self._next(), id_, name, volume.size, volume_id, self._now())
        if self._disk:
            self._disk.create(SNAPSHOTS, snapshot.id, snapshot, copy_of=(VOLUMES, volume_id))
        self.snapshots[snapshot.id] = snapshot
        self._snapshot_names[name] = snapshot.id
        return snapshot

    def snapshot(self, id_: str) -> Snapshot:
        if not id_:
            raise Refused("INVALID_ARGUMENT", "a snapshot id is required")
        if id_ not in self.snapshots:
            raise Refused("NOT_FOUND", f"there is no snapshot {id_}")
        return self.snapshots[id_]

    def delete_snapshot(self, id_: str) -> None:
        if not id_:
            raise Refused("INVALID_ARGUMENT", "a snapshot id is required")
        if id_ not in self.snapshots:
            return
        if self._disk:
            self._disk.remove(SNAPSHOTS, id_)
        del self._snapshot_names[self.snapshots.pop(id_).name]

    # -- inside

    def _source(self, wanted: Wanted) -> Volume | Snapshot | None:
        if wanted.source_snapshot:
            return self.snapshot(wanted.source_snapshot)
        if wanted.source_volume:
            return self.volume(wanted.source_volume)
        return None

    def _check_mutable(self, parameters: Mapping[str, str]) -> None:
        unknown = sorted(set(parameters).difference(self._config.mutable_parameters))
        if unknown:
            raise Refused("INVALID_ARGUMENT", f"mutable parameters unknown to this driver: {', '.join(unknown)}")

    def _size(self, wanted: Wanted, at_least: int) -> int:
        size = max(wanted.required, at_least) or min(
            self._config.default_size, wanted.limit or self._config.default_size
        )
        if min(wanted.required, wanted.limit) < 0 or (wanted.limit and size > wanted.limit):
            raise Refused("OUT_OF_RANGE", f"{size} bytes are needed, {wanted.limit} bytes are the limit")
        largest = max((pool.largest_volume for pool in self._config.pools), default=0)
        if size > largest:
            raise Refused("OUT_OF_RANGE", f"{size} bytes are more than the largest volume of {largest} bytes")
        return size

    def _room(self, size: int, segments: Sequence[Mapping[str, str]]) -> int:
        """The pool for a volume: the first with room, in the order in which the segments were asked for."""
        for segment in segments or [{}]:
            for index, pool in enumerate(self._config.pools):
                if _reaches(segment, pool.segment) and size <= min(self._free(index), pool.largest_volume):
                    return index
        raise Refused("RESOURCE_EXHAUSTED", f"no room for {size} bytes" + (f" in {list(segments)}" if segments else ""))

    def _pool_of(self, volume: Volume) -> int:
        return next(index for index, pool in enumerate(self._config.pools) if pool.segment == volume.segment)

    def _free(self, pool: int) -> int:
        return max(0, self._config.pools[pool].size - self._used[pool])

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _replace(self, volume: Volume) -> Volume:
        if self._disk:
            self._disk.save(VOLUMES, volume.id, volume)
        self.volumes[volume.id] = volume
        return volume


def page(items: Iterable[Item], limit: int, token: str) -> tuple[list[Item], str]:
    """The items of one page and the token for the next. A token is the serial of the last item given: it survives
    deletions.
    """
    if token and not token.isdecimal():
        raise Refused("ABORTED", f"{token!r} is not a token of an earlier answer")
    if limit < 0:
        raise Refused("INVALID_ARGUMENT", f"{limit} entries cannot be listed")
    left = sorted((item for item in items if item.serial > int(token or 0)), key=lambda item: item.serial)
    given = left[: limit or None]
    return given, str(given[-1].serial) if len(given) < len(left) else ""


def _check_same(existing: Volume, wanted: Wanted) -> None:
    fits = existing.size >= wanted.required and not (wanted.limit and existing.size > wanted.limit)
    sources = [(volume.source_snapshot, volume.source_volume) for volume in (existing, wanted)]
    same = {
        "size": fits,
        "parameters": existing.parameters == wanted.parameters,
        "access type": existing.block == wanted.block,
        "content source": sources[0] == sources[1],
        "topology": not wanted.segments or any(_reaches(s, existing.segment) for s in wanted.segments),
    }
    differs = [what for what, holds in same.items() if not holds]
    if differs:
        raise Refused("ALREADY_EXISTS", f"volume {existing.name} exists with another {' and '.join(differs)}")


def _reaches(segment: Mapping[str, str], pool: Mapping[str, str]) -> bool:
    """Whether storage of the pool is usable in the segment: the two name no label differently."""
    return all(segment.get(key, value) == value for key, value in pool.items())
