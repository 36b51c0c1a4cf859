"""No secret gets out: into no log at any verbosity and format, no event, metric or object (design.md 3, rule 6)."""

import base64
import json
from base64 import b64encode
from urllib.parse import quote

import pytest

from csi_provisioner.settings import LogSettings
from tests.canary import held
from tests.deletion.released import released
from tests.installation import CLAIM, NAMESPACE, VOLUME, Installation

PREFIX = "csi.storage.k8s.io/"
PURPOSES = ("provisioner", "controller-publish", "node-stage", "node-publish", "controller-expand", "node-expand")
VALUES = {"user": "opensesame-user", "password": 'hunter2-"quoted"-<&>-\u00fc'}
"""What may be read nowhere; the second looks different in JSON and in URLs."""


def _forms(value: str) -> set[str]:
    """The ways in which it could be written."""
    raw = value.encode()
    encoded = base64.b64encode(raw).decode()
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1], encoded}


def _leaks(text: str) -> list[str]:
    return [form for value in VALUES.values() for form in _forms(value) if form in text]


def _parameters() -> dict[str, str]:
    return {
        f"{PREFIX}{purpose}-secret-{part}": value
        for purpose in PURPOSES
        for part, value in (("name", "${pvc.name}-login"), ("namespace", NAMESPACE))
    }


async def _whole_life(site: Installation, log: LogSettings) -> None:
    """Every way on which a secret is in our hands: calls that succeed, fail, are undone, cut, and deletions."""
    for name in ("good", "failing", "small", "late", "gone"):
        site.secret(f"{name}-login", **VALUES)
    site.secret("static-login", **VALUES)
    # A driver that repeats a secret, in one form and in another
    for form in (quote, b64encode, json.dumps):
        password = held(**VALUES)["password"]
        said = form(password.encode() if form is b64encode else password)
        site.fault("INTERNAL", match="/failing$", times=1, message=f"no user {said}")
    site.fault(capacity_delta=-1, match="/small$", times=1)
    site.fault("UNAVAILABLE", match="/late$", times=1, created=True)
    site.fault("INTERNAL", rpc="DeleteVolume", times=4)
    site.refuse("get", "Secret", 500, times=2)
    site.storage_class(parameters=_parameters())
    for name in ("good", "failing", "small", "late", "gone"):
        site.claim(name)
    deletion = "volume.kubernetes.io/provisioner-deletion-secret"
    released(site, annotations={f"{deletion}-name": "static-login", f"{deletion}-namespace": NAMESPACE})
    await site.start(log=log)
    await site.bound("good", "failing", "small", "late", "gone")
    site.driver.break_connections()
    site.delete(CLAIM, "gone")
    await site.until(lambda: len(site.objects.all(VOLUME)) == 4)
    await site.rest(5)
    assert all(call.request.secrets == held(**VALUES) for call in site.calls() if call.code == "OK")
    assert {tuple(call.request.secrets) for call in site.calls("DeleteVolume")} >= {tuple(VALUES)}


@pytest.mark.parametrize("as_json", [False, True], ids=["text-p19-request-10", "json-p19-request-10"])
async def test_no_secret_in_any_log_event_metric_or_object(
    site: Installation, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    await _whole_life(site, LogSettings(verbosity=9, json=as_json))
    pages = ""
    for path in ("/metrics", "/statusz", "/statusz/data", "/flagz", "/readyz"):
        pages += await site.scraped(path)
    assert "no user" in pages
    await site.stop()
    log = capsys.readouterr().err
    assert "CreateVolume" in log
    assert log.count("no user") >= 3
    assert "***stripped***" in log
    if as_json:
        assert all(json.loads(line) for line in log.splitlines())
    assert _leaks(log) == []
    assert _leaks(pages) == []
    for kind in ("Event", CLAIM, VOLUME):
        assert _leaks(json.dumps(site.objects.all(kind), ensure_ascii=False)) == []
    assert len(site.objects.all("Event")) > 10
    # what is looked for would be found
    assert _leaks(f"{log}{VALUES['password']!r}") != []


async def test_nor_one_that_cannot_be_decoded_p19_request_10(
    site: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret whose values are no base64, as no API server would have it."""
    broken = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "data-login", "namespace": NAMESPACE}}
    kind = site.objects.kind("Secret")
    site.objects.storage.write(kind, (NAMESPACE, "data-login"), broken | {"data": VALUES})
    site.storage_class(parameters=_parameters())
    site.claim()
    await site.start(log=LogSettings(verbosity=9))
    failed = await site.event("data", "ProvisioningFailed", 2)
    assert "default/data-login" in failed["message"]
    await site.stop()
    assert _leaks(capsys.readouterr().err) == []
    assert _leaks(json.dumps(site.objects.all("Event"), ensure_ascii=False)) == []
