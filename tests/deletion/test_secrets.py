"""Which secret goes with DeleteVolume, and that a missing one does not keep a volume (delete.md 8 and 12)."""

from typing import Any

import pytest

from tests.canary import held, secret
from tests.deletion.released import released
from tests.installation import NAMESPACE, VOLUME, Installation

PREFIX = "csi.storage.k8s.io/provisioner-secret"
ANNOTATION = "volume.kubernetes.io/provisioner-deletion-secret"
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def _annotated(name: str, namespace: str = NAMESPACE) -> dict[str, str]:
    return {f"{ANNOTATION}-name": name, f"{ANNOTATION}-namespace": namespace}


def _named(name: str) -> dict[str, str]:
    return {f"{PREFIX}-name": name, f"{PREFIX}-namespace": NAMESPACE}


# id: annotations, the class's parameters (None: no class), other fields of the volume, whose secret is sent
CASES: dict[str, tuple[dict[str, str], dict[str, str] | None, dict[str, Any], str]] = {
    "annotations-empty": (_annotated("", ""), _named("of-class"), {}, ""),
    "annotation-half-empty": (_annotated("of-volume", ""), _named("of-class"), {}, ""),
    "annotations-and-no-class-d13-4": (_annotated("of-volume"), None, {}, "of-volume"),
    "annotations-win": (_annotated("of-volume"), _named("of-class"), {}, "of-volume"),
    "annotated-secret-gone-d13-4": (_annotated("missing"), _named("of-class"), {}, ""),
    "class": ({}, _named("of-class"), {}, "of-class"),
    "one-annotation-is-none": ({f"{ANNOTATION}-name": "of-volume"}, _named("of-class"), {}, "of-class"),
    "beta-class-annotation": ({BETA_CLASS: "fast"}, _named("of-class"), {"storageClassName": "unused"}, "of-class"),
    "class-gone-d13-4": ({}, None, {}, ""),
    "no-class": ({}, _named("of-class"), {"storageClassName": None}, ""),
    "secret-of-class-gone-d13-4": ({}, _named("missing"), {}, ""),
    "tokens-d13-15": ({}, _named("${pvc.name}-of-${pvc.namespace}"), {}, "gone-of-default"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_volume_is_deleted_with_the_right_secret_or_none(site: Installation, case: str) -> None:
    """delete.md 12."""
    annotations, parameters, fields, expected = CASES[case]
    for name in ("of-volume", "of-class", "gone-of-default"):
        site.secret(name, of=name)
    if parameters is not None:
        site.storage_class(parameters=parameters)
    released(site, annotations=annotations, **fields)
    await site.start()
    await site.until(lambda: site.calls("DeleteVolume"))
    assert site.calls("DeleteVolume")[0].request.secrets == (held(of=expected) if expected else {})
    assert site.events("pv") == []


ERRORS = {
    "annotation-token": _named("${pvc.annotations['k']}"),
    "half-a-pair": {f"{PREFIX}-name": "of-class"},
    "unknown-token": _named("${node.name}"),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_a_template_that_cannot_be_filled_in_is_an_error(site: Installation, case: str) -> None:
    """delete.md 12."""
    site.storage_class(parameters=ERRORS[case])
    released(site)
    await site.start()
    event = await site.event("pv", "VolumeFailedDelete", 2)
    assert "secret" in event["message"]
    assert site.calls("DeleteVolume") == []


async def test_a_secret_that_is_not_found_is_done_without_d13_4(site: Installation) -> None:
    """delete.md 8."""
    released(site, annotations=_annotated("of-volume"))
    await site.start()
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    [line] = site.logged("Cannot read the secret for the deletion")
    assert (line.keys["PV"], line.keys["secret"]) == ("pv", "default/of-volume")
    assert line.level == "WARNING"


@pytest.mark.parametrize("trouble", [{"code": 403}, {"code": 500}, {"code": 0, "cut": "before"}], ids=str)
async def test_a_secret_that_cannot_be_read_just_now_is_waited_for(site: Installation, trouble: dict[str, Any]) -> None:
    """The volume may need it: without, a driver may say that it is gone, or lock the account (delete.md 8)."""
    site.secret("of-volume", of="volume")
    released(site, annotations=_annotated("of-volume"))
    site.refuse("get", "Secret", **trouble)
    await site.start()
    event = await site.event("pv", "VolumeFailedDelete", 3)
    for fact in ("volume pv waits", "default/of-volume", "attempt 3; next try in 4 s"):
        assert fact in event["message"]
    assert site.calls("DeleteVolume") == []
    site.api.clear()
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    assert [call.request.secrets for call in site.calls("DeleteVolume")] == [held(of="volume")]


async def test_a_secret_that_no_object_can_be_called_is_never_asked_for(site: Installation) -> None:
    """delete.md 8."""
    released(site, annotations=_annotated("../../kube-system/secrets/token"))
    await site.start()
    event = await site.event("pv", "VolumeFailedDelete", 2)
    assert "'../../kube-system/secrets/token'" in event["message"]
    assert site.requests.of("get", "Secret") == []
    assert site.calls("DeleteVolume") == []


async def test_the_secret_is_read_again_for_every_try(site: Installation) -> None:
    """delete.md 8."""
    site.secret("of-volume", password="old")
    released(site, annotations=_annotated("of-volume"))
    site.fault("UNAUTHENTICATED", rpc="DeleteVolume", times=2)
    await site.start()
    await site.until(lambda: site.calls("DeleteVolume"))
    site.edit("Secret", "of-volume", lambda found: found.update(data=secret("", password="new")["data"]))
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    assert [call.request.secrets for call in site.calls("DeleteVolume")][-1] == held(password="new")


async def test_a_secret_of_bytes_that_are_no_text_is_waited_for(site: Installation) -> None:
    """delete.md 8."""
    site.secret("of-volume", of="ok", raw={"key": "//79"})
    released(site, annotations=_annotated("of-volume"))
    await site.start()
    event = await site.event("pv", "VolumeFailedDelete", 2)
    assert "the value of 'key' in secret default/of-volume is not UTF-8 text" in event["message"]
    assert site.calls("DeleteVolume") == []
    site.edit("Secret", "of-volume", lambda secret: secret["data"].update(key="b2s="))
    await site.until(lambda: site.find(VOLUME, "pv") is None)
    assert [call.request.secrets for call in site.calls("DeleteVolume")] == [held(of="ok") | {"key": "ok"}]
