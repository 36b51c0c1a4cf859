"""The pages for probes, as the process has them over its life (process.md 7; design.md 4)."""

import httpx2
import msgspec
import pytest
import trio
from msgspec.structs import replace

from csi_provisioner.settings import ElectionSettings, HttpSettings, RetrySettings
from tests.installation import NAMESPACE, Installation

ELECTION = ElectionSettings(enabled=True, namespace=NAMESPACE)


async def look(site: Installation, path: str) -> tuple[int, str]:
    address = site.logged("Listening")[-1].keys["address"]
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://{address}{path}")
    return answer.status_code, answer.text


async def ready(site: Installation) -> tuple[int, str]:
    return await look(site, "/readyz")


async def alive(site: Installation) -> int:
    return (await look(site, "/livez"))[0]


async def test_a_worker_is_ready_when_its_caches_are_and_its_rights_are_known(site: Installation) -> None:
    await site.start()
    await site.rest(2)
    lines = "[+] driver: ok\n[+] caches: ok\n[+] leadership: ok: no election\n[+] rights: ok\n"
    assert await ready(site) == (200, lines)
    assert await look(site, "/livez") == (200, "[+] alive: ok\n")


async def test_a_right_on_a_kind_that_the_cluster_lacks_is_not_missed(site: Installation) -> None:
    """Discovery has switched off what needs it (process.md 1.4)."""
    site.objects.kinds.remove(site.objects.kinds.named("VolumeAttributesClass"))
    site.api.denied.add(("get", "volumeattributesclasses"))
    await site.start()
    await site.rest(20)
    code, lines = await ready(site)
    assert (code, "volumeattributesclasses" in lines) == (200, False)


async def test_a_standby_is_ready(site: Installation) -> None:
    spec = {"holderIdentity": "them", "leaseDurationSeconds": 3600}
    site.objects.create("Lease", {"metadata": {"name": "sandbox-csi-example-com"}, "spec": spec}, NAMESPACE)
    with trio.move_on_after(5):
        await site.start(election=ELECTION)
    code, lines = await ready(site)
    assert code == 200
    assert "[+] caches: ok: standing by\n[+] leadership: ok: standing by" in lines


async def test_before_the_driver_answers_it_is_alive_and_not_ready(site: Installation) -> None:
    site.fault(rpc="Probe", not_ready=True)
    with trio.move_on_after(5):
        await site.start()
    assert await ready(site) == (500, "[-] driver: not met yet\n[-] caches: not begun\n"
        "[+] leadership: ok: no election\n[+] rights: ok\n")  # fmt: skip
    assert await alive(site) == 200


async def test_rights_are_looked_at_before_the_driver_answers(site: Installation) -> None:
    """What the flags need; what the driver's abilities need besides is looked at when it is met."""
    site.fault(rpc="Probe", not_ready=True)
    site.api.denied.add(("list", "storageclasses"))
    with trio.move_on_after(30):
        await site.start(election=ELECTION)
    assert "[-] rights: missing: list storageclasses.storage.k8s.io; add" in (await ready(site))[1]
    assert len(site.logged("Rights are missing")) == 1
    site.api.clear()
    site.driver.faults.clear()
    await site.until(lambda: site.logged("Caches are synced"))
    await site.until(lambda: site.logged("Caches are synced") and site.requests.of("watch", "StorageClass"))
    await site.rest(5)
    assert "[+] rights: ok" in (await ready(site))[1]


async def test_a_driver_that_is_away_is_no_reason_for_a_restart(site: Installation) -> None:
    site.fault("UNAVAILABLE")
    site.storage_class()
    site.claim()
    await site.start()
    site.kill_driver()
    await site.rest(100)
    code, lines = await ready(site)
    assert code == 500
    assert "[-] driver: sandbox.csi.example.com has not answered for" in lines
    assert await alive(site) == 200
    await site.rest(100)
    assert await alive(site) == 200
    await site.serve()
    await site.rest(5)
    assert (await ready(site))[0] == 200


async def test_a_list_that_is_refused_is_named_and_no_reason_for_a_restart(site: Installation) -> None:
    site.refuse("list", "StorageClass", 403)
    site.api.denied.add(("list", "storageclasses"))
    with trio.move_on_after(30):
        await site.start()
    code, lines = await ready(site)
    assert code == 500
    assert "[-] caches: waiting for the first list of StorageClass\n" in lines
    assert "[-] rights: missing: list storageclasses.storage.k8s.io; add {apiGroups" in lines
    assert "(kustomize/base has it)" in lines
    assert await alive(site) == 200
    assert len(site.logged("Rights are missing")) == 1
    site.api.clear()
    await site.until(lambda: site.logged("Rights that were missing are there"))
    await site.until(lambda: site.logged("Caches are synced"))
    assert (await ready(site))[0] == 200


async def test_a_leader_that_waits_for_its_journal_is_no_standby(site: Installation) -> None:
    refused = site.refuse("get", "Lease", name="*-journal-*")
    with trio.move_on_after(5):
        await site.start(election=replace(ELECTION, own_namespace=NAMESPACE))
    code, lines = await ready(site)
    assert code == 500
    assert "[-] caches: not begun\n[+] leadership: ok: leading\n" in lines
    refused.times = 0
    await site.until(lambda: site.logged("Caches are synced"))
    assert (await ready(site))[0] == 200


async def test_claims_that_wait_for_a_list_that_is_refused_are_no_reason_for_a_restart(site: Installation) -> None:
    site.refuse("list", "StorageClass", 403)
    site.storage_class()
    site.claim()
    with trio.move_on_after(5):
        await site.start()
    for _ in range(5):
        assert await alive(site) == 200
        await site.rest(20)


async def test_after_a_goodbye_a_driver_that_is_not_ready_is_away(site: Installation) -> None:
    await site.start()
    site.fault(rpc="Probe", not_ready=True)
    site.driver.say_goodbye()
    await site.rest(60)
    code, lines = await ready(site)
    assert code == 500
    assert "[-] driver: sandbox.csi.example.com has not answered for" in lines
    site.driver.faults.clear()
    await site.rest(5)
    assert (await ready(site))[0] == 200


async def test_a_right_that_is_granted_with_the_pod_is_not_missing(site: Installation) -> None:
    site.api.denied.add(("list", "storageclasses"))
    with trio.move_on_after(5):
        await site.start()
    site.api.clear()
    await site.rest(60)
    assert site.logged("Rights are missing") == []
    assert (await ready(site))[0] == 200


async def test_what_works_without_a_right_is_ready_without_it(site: Installation) -> None:
    site.api.denied.add(("patch", "events"))
    await site.start()
    await site.rest(15)
    code, lines = await ready(site)
    assert code == 200
    assert "[!] rights: missing: patch events: repeats of an event are not counted; add" in lines


async def test_a_driver_that_comes_back_with_other_capabilities_needs_other_rights(site: Installation) -> None:
    site.api.denied.add(("watch", "volumeattachments"))
    await site.start()
    await site.rest(15)
    assert (await ready(site))[0] == 200
    site.kill_driver()
    await site.rest(2)
    both = (*site.config.controller, "PUBLISH_UNPUBLISH_VOLUME")
    await site.serve(msgspec.structs.replace(site.config, controller=both))
    await site.rest(15)
    code, lines = await ready(site)
    assert code == 500
    assert "[-] rights: missing: watch volumeattachments" in lines


async def test_each_right_is_asked_for_once_also_by_the_first_claim(site: Installation) -> None:
    asked: list[str] = []
    site.api.on_review = lambda review, _agent: asked.append(review)
    site.fault(rpc="Probe", not_ready=True)
    with trio.move_on_after(5):
        await site.start()
    site.driver.faults.clear()
    await site.until(lambda: site.logged("Caches are synced"))
    await site.rest(5)
    site.storage_class()
    site.claim()
    await site.bound("data")
    assert "create persistentvolumes" in asked
    assert sorted(asked) == sorted(set(asked))


async def test_a_first_volume_comes_before_the_look_at_all_rights(site: Installation) -> None:
    asked: list[str] = []
    site.api.on_review = lambda review, _agent: asked.append(review)
    site.storage_class()
    site.claim()
    await site.start()
    await site.until(site.calls)
    assert asked == ["create persistentvolumes"]


async def test_the_right_that_a_first_claim_needs_is_looked_at_while_the_caches_fill(site: Installation) -> None:
    asked: list[str] = []
    site.api.on_review = lambda review, _agent: asked.append(review)
    await site.start()
    await site.until(lambda: site.logged("Caches are synced"))
    assert asked == ["create persistentvolumes"]


async def test_reviews_that_are_not_answered_are_not_known(site: Installation) -> None:
    reviews = 0

    def count(_asked: str, _agent: str) -> None:
        nonlocal reviews
        reviews += 1

    site.api.on_review = count
    await site.start(election=ELECTION)
    await site.rest(600)
    assert reviews < 40, "asked once"


@pytest.mark.parametrize("busy", [1, 5])
async def test_a_backlog_is_no_reason_for_a_restart(site: Installation, busy: int) -> None:
    """All workers hang in the driver, and keys are due."""
    site.fault(hang=True)
    site.storage_class()
    for number in range(busy + 5):
        site.claim(f"data-{number}")
    await site.start(call_timeout=600, retries=RetrySettings(workers=busy))
    await site.until(lambda: len(site.calls()) == busy)
    for _ in range(5):
        assert await alive(site) == 200
        await site.rest(20)


async def test_the_pages_are_only_on_the_http_endpoint(site: Installation) -> None:
    await site.start(http=HttpSettings(endpoint="127.0.0.1:0", legacy=True))
    assert (await ready(site))[0] == 404
    assert await alive(site) == 404
