"""Counts of provisionings (provision.md 11.2): what is a success, what a failure, what is not counted."""

import msgspec
import pytest

from sandbox.driver import Config
from tests.installation import CLAIM, CLASS, VOLUME, Installation
from tests.journeys.objects import from_claim

PREFIX = "controller_persistentvolumeclaim_provision"
# Of such a class the volume controller leaves the claim's annotations as they are.
NOBODY = "kubernetes.io/no-provisioner"


async def _counts(site: Installation) -> dict[str, float]:
    """By what is counted and its labels; buckets left out."""
    return {
        series.removeprefix(PREFIX): value
        for series, value in (await site.metrics()).items()
        if series.startswith(PREFIX) and "_bucket" not in series and "_sum" not in series
    }


def _labels(class_: str = "fast", source: str = "") -> str:
    return f'{{class="{class_}",source="{source}"}}'


async def test_a_volume_that_is_made_is_counted_as_a_success(site: Installation) -> None:
    """provision.md 11.2."""
    site.fault(delay=3.0)
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    assert await _counts(site) == {f"_total{_labels()}": 1, f"_duration_seconds_count{_labels()}": 1}
    found = await site.metrics()
    assert found[f"{PREFIX}_duration_seconds_sum{_labels()}"] == pytest.approx(3.0, abs=0.1)
    assert f'{PREFIX}_duration_seconds_bucket{{class="fast",source="",le="0.005"}}' in found


async def test_failures_are_counted_and_then_a_success_with_the_time_of_its_own_try(site: Installation) -> None:
    """provision.md 11.2."""
    site.fault("INTERNAL", times=3)
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    counts = await _counts(site)
    assert counts[f"_failed_total{_labels()}"] == 3
    assert counts[f"_total{_labels()}"] == 1
    assert (await site.metrics())[f"{PREFIX}_duration_seconds_sum{_labels()}"] < 0.5


async def test_labels_are_the_field_of_the_class_and_the_kind_of_the_source(site: Installation) -> None:
    """The beta annotation says which class it is, but is not the label; dataSourceRef is not looked at
    (provision.md 11.2)."""
    site.storage_class()
    site.claim("source")
    await site.start()
    await site.bound("source")
    site.claim("clone", **from_claim("source"))
    site.claim("beta", "unused")
    await site.bound("clone")
    beta = {"volume.beta.kubernetes.io/storage-class": "fast"}
    site.edit(CLAIM, "beta", lambda claim: claim["metadata"].setdefault("annotations", {}).update(beta))
    await site.bound("beta")
    counts = await _counts(site)
    assert counts[f"_total{_labels(source='PersistentVolumeClaim')}"] == 1
    assert counts[f"_total{_labels(class_='')}"] == 1  # nothing is called `unused`


async def test_a_missing_class_is_counted_as_a_failure(site: Installation) -> None:
    """provision.md 11.2."""
    site.claim()
    chosen = {"volume.kubernetes.io/storage-provisioner": site.config.name}
    site.edit(CLAIM, "data", lambda claim: claim["metadata"].setdefault("annotations", {}).update(chosen))
    await site.start()
    await site.rest(4)
    assert await _counts(site) == {f"_failed_total{_labels(class_='')}": 3}


async def test_the_author_of_claims_makes_no_series(site: Installation) -> None:
    """A name that he thinks up may not stay in the memory of this process, and of whoever scrapes it
    (process.md 8.2)."""
    site.storage_class()
    for number in range(10):
        site.claim(f"missing-{number}", f"nobodys-{number}")
        chosen = {"volume.kubernetes.io/storage-provisioner": site.config.name}
        change = {"annotations": chosen}
        site.edit(CLAIM, f"missing-{number}", lambda claim, change=change: claim["metadata"].update(change))
        backup = {"apiGroup": "example.com", "kind": f"Backup{number}", "name": "monday"}
        site.claim(f"populated-{number}", dataSourceRef=backup)
    await site.start()
    await site.rest(5)
    assert set(await _counts(site)) == {f"_failed_total{_labels()}", f"_failed_total{_labels(class_='')}"}


async def test_populators_and_classes_of_others_are_counted_as_failures(site: Installation) -> None:
    """provision.md 11.2."""
    site.storage_class()
    fields = {"provisioner": NOBODY, "volumeBindingMode": "Immediate"}
    site.objects.create(CLASS, {"metadata": {"name": "theirs"}} | fields)
    site.claim("populated", dataSourceRef={"apiGroup": "example.com", "kind": "Backup", "name": "monday"})
    site.claim("replaced", "theirs")
    chosen = {"volume.kubernetes.io/storage-provisioner": site.config.name}
    site.edit(CLAIM, "replaced", lambda claim: claim["metadata"].setdefault("annotations", {}).update(chosen))
    await site.start()
    await site.rest(5)
    counts = await _counts(site)
    assert counts[f"_failed_total{_labels()}"] == 1
    assert counts[f"_failed_total{_labels(class_='theirs')}"] >= 1
    assert not [series for series in counts if series.startswith("_total")]


async def test_a_volume_that_is_there_already_is_counted_as_a_failure(site: Installation) -> None:
    """provision.md 11.2."""
    site.storage_class()
    site.claim()
    volume = {
        "metadata": {"name": site.volume_of("data")},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "storageClassName": "another",
            "csi": {"driver": site.config.name, "volumeHandle": "by-hand"},
        },
    }
    site.objects.create(VOLUME, volume)
    await site.start()
    await site.rest(5)
    assert set(await _counts(site)) == {f"_failed_total{_labels()}"}


async def test_while_an_infeasible_claim_is_held_off_nothing_is_counted(site: Installation) -> None:
    """provision.md 11.2."""
    site.fault("INVALID_ARGUMENT")
    site.storage_class()
    site.claim()
    await site.start()
    await site.rest(10)
    for value in "abc":
        site.touch(CLAIM, "data", value)
        await site.rest(10)
    assert await _counts(site) == {f"_failed_total{_labels()}": 1}


async def test_a_volume_that_cannot_be_saved_is_counted_as_a_success(site: Installation) -> None:
    """provision.md 11.2."""
    site.refuse("create", VOLUME)
    site.storage_class()
    site.claim()
    await site.start()
    await site.rest(100)
    assert (await _counts(site))[f"_total{_labels()}"] == 1
    assert f"_failed_total{_labels()}" not in await _counts(site)


async def test_calls_of_a_migratable_driver_say_whether_the_volume_is_migrated_p19_migration_6(
    site: Installation,
) -> None:
    """process.md 3.1."""
    site.kill_driver()
    await site.rest(0.1)
    await site.serve(msgspec.structs.replace(site.config, name="ebs.csi.aws.com"))
    site.storage_class()
    site.objects.create(
        CLASS,
        {"metadata": {"name": "old"}, "provisioner": "kubernetes.io/aws-ebs", "volumeBindingMode": "Immediate"},
    )
    site.claim("new")
    site.claim("migrated", "old")
    moved = {
        "volume.kubernetes.io/storage-provisioner": "ebs.csi.aws.com",
        "pv.kubernetes.io/migrated-to": "ebs.csi.aws.com",
    }
    site.edit(CLAIM, "migrated", lambda claim: claim["metadata"].setdefault("annotations", {}).update(moved))
    await site.start()
    await site.bound("new")
    await site.until(lambda: len(site.calls()) == 2)
    await site.rest(1)
    found = await site.metrics()
    for migrated in ("true", "false"):
        labels = (
            'driver_name="ebs.csi.aws.com",grpc_status_code="OK",'
            f'method_name="/csi.v1.Controller/CreateVolume",migrated="{migrated}"'
        )
        assert found[f"csi_sidecar_operations_seconds_count{{{labels}}}"] == 1


async def test_calls_of_another_driver_say_nothing_of_migration_p19_migration_6(site: Installation) -> None:
    """process.md 3.1."""
    assert site.config == Config()
    site.storage_class()
    site.claim()
    await site.start()
    await site.bound("data")
    await site.rest(1)
    assert "migrated" not in await site.scraped()
