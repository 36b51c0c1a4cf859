"""How messages are shown: one row a kind of field (process.md 9.3)."""

import json
from base64 import b64encode, urlsafe_b64encode
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from betterproto2 import Message

from csi_provisioner.csi.redaction import redact, scrubbed
from csi_provisioner.model import csi
from csi_provisioner.model.csi.secret_fields import SECRET_FIELDS
from tests import protobuf, shown
from tests.canary import CANARY, CORE, FORMS

MOUNT = csi.VolumeCapability(
    mount=csi.VolumeCapabilityMountVolume(),
    access_mode=csi.VolumeCapabilityAccessMode(mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER),
)

ROWS = {
    "the example of the spec": (
        csi.CreateVolumeRequest(
            name="pvc-1",
            capacity_range=csi.CapacityRange(required_bytes=1099511627776),
            volume_capabilities=[MOUNT],
            secrets={"password": "hidden"},
        ),
        '{"capacity_range":{"required_bytes":1099511627776},"name":"pvc-1","secrets":"***stripped***",'
        '"volume_capabilities":[{"access_mode":{"mode":"SINGLE_NODE_WRITER"},"mount":{}}]}',
    ),
    "nothing": (csi.DeleteVolumeResponse(), "{}"),
    "empty secrets are left out": (csi.DeleteVolumeRequest(volume_id="v", secrets={}), '{"volume_id":"v"}'),
    "parameters and context are shown": (
        csi.Volume(volume_context={"password": "shown"}),
        '{"volume_context":{"password":"shown"}}',
    ),
    "keys of maps are sorted": (csi.Topology(segments={"b": "1", "a": "2"}), '{"segments":{"a":"2","b":"1"}}'),
    "an enum without a name": (
        csi.PluginCapabilityService(type=csi.PluginCapabilityServiceType(77)),
        '{"type":77}',
    ),
    "false is not populated": (csi.Snapshot(ready_to_use=False), "{}"),
    "true": (csi.Snapshot(ready_to_use=True), '{"ready_to_use":true}'),
    "a wrapper": (csi.GetCapacityResponse(maximum_volume_size=5), '{"maximum_volume_size":{"value":5}}'),
    "a wrapper of the default": (csi.ProbeResponse(ready=False), '{"ready":{}}'),
    "a timestamp": (
        csi.Snapshot(creation_time=datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)),
        '{"creation_time":{"seconds":7}}',
    ),
    "markup is escaped": (csi.Topology(segments={"a": "<&>"}), '{"segments":{"a":"\\u003c\\u0026\\u003e"}}'),
    "it stays one line": (csi.Topology(segments={"a": "\n\u2028ö"}), '{"segments":{"a":"\\n\\u2028ö"}}'),
    "lists": (
        csi.CreateVolumeResponse(volume=csi.Volume(accessible_topology=[csi.Topology(), csi.Topology({"a": "b"})])),
        '{"volume":{"accessible_topology":[{},{"segments":{"a":"b"}}]}}',
    ),
}


@pytest.mark.parametrize(("message", "shown"), ROWS.values(), ids=ROWS)
def test_each_kind_of_field_is_shown(message: Message, shown: str) -> None:
    assert redact(message) == shown
    json.loads(shown)


def test_the_table_of_secrets_is_what_the_proto_says() -> None:
    """process.md 9.3."""
    marked = protobuf.marked_fields()
    assert len(marked) == 11
    assert marked == SECRET_FIELDS


@pytest.mark.parametrize(("message", "field"), sorted(SECRET_FIELDS))
def test_secrets_are_stripped_by_the_option(message: str, field: str) -> None:
    """process.md 9.3."""
    request = getattr(csi, message)(**{field: {"key": "hidden"}})
    assert redact(request) == f'{{"{field}":"***stripped***"}}'


def test_secrets_are_stripped_at_every_level() -> None:
    """process.md 9.3."""
    # The proto has none inside another message yet; a newer one may.
    secret = {("Topology", "segments"), ("Volume", "volume_id")}
    response = csi.CreateVolumeResponse(
        volume=csi.Volume(volume_id="hidden", accessible_topology=[csi.Topology({"a": "hidden"})])
    )
    assert redact(response, secret) == (
        '{"volume":{"accessible_topology":[{"segments":"***stripped***"}],"volume_id":"***stripped***"}}'
    )


def test_a_driver_that_repeats_a_secret_is_not_quoted_with_it() -> None:
    request = csi.CreateVolumeRequest(
        name="pvc-1", secrets={"user": "ada", "key": "s3cret-key", "longer": "s3cret-key-2"}
    )
    said = "login of ada with s3cret-key-2 failed, s3cret-key too, for pvc-1"
    assert scrubbed(said, request) == "login of ada with ***stripped*** failed, ***stripped*** too, for pvc-1"
    assert scrubbed(said, csi.ProbeRequest()) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param("hunter2\n", "login with hunter2 failed", id="line-end"),
        pytest.param('hu"nter\n2', r'"hu\"nter\n2" is no key', id="quoted"),
        pytest.param("hun<ter&2", r'{"key":"hun\u003cter\u00262"}', id="go-json"),
    ],
)
def test_a_secret_is_known_however_a_driver_puts_it(value: str, said: str) -> None:
    shown = scrubbed(said, csi.DeleteVolumeRequest(secrets={"key": value}))
    assert "nter" not in shown
    assert "***stripped***" in shown


OTHER_FORMS = shown.FORMS | {
    "url": f"Post https://root:{quote(CANARY, safe='&')}@array/api: connection refused",
    "lower-case-url": quote(CANARY, safe="").lower().replace(CORE.lower(), CORE),
    "basic-auth": b64encode(f"root:{CANARY}".encode()).decode(),
    "base64-of-urls": urlsafe_b64encode(f"ro{CANARY}".encode()).decode(),
    "bytes": repr(CANARY.encode()),
    "go": json.dumps(json.dumps(CANARY)),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_a_secret_is_known_in_the_forms_of_urls_and_headers(form: str) -> None:
    request = csi.CreateVolumeRequest(secrets={"key": CANARY, "other": "unused"})
    said = scrubbed(f"no user: {OTHER_FORMS[form]}, so it said", request)
    assert not any(each in said for each in FORMS)
    assert "no user: " in said or "in another form" in said


def test_words_that_repeat_no_secret_stay_as_they_are() -> None:
    request = csi.CreateVolumeRequest(secrets={"key": CANARY, "short": "100%", "spaced": "two words"})
    said = r'at 99% of "C:\new\u0041" + GET /a%20b?c=+d, Zm9vYmFy \u00zz %zz'
    assert scrubbed(said, request) == said
    assert scrubbed("it said two+words, or two%20words", request) == "it said ***stripped***, or ***stripped***"
    assert "two" not in scrubbed(r"it said two\u0020words or \u0074wo words", request)


@pytest.mark.parametrize(("values", "length"), [(20_000, 1_000), (100, 1_000_000)])
def test_where_there_is_too_much_to_look_for_nothing_is_shown(values: int, length: int) -> None:
    """Anybody may fill a Secret; looking for all of it would keep everything else waiting."""
    request = csi.CreateVolumeRequest(secrets={f"key-{n}": f"secret-{n}" for n in range(values)})
    shown = scrubbed("secret-5 " + "x" * length, request)
    assert f"{values} secret values" in shown
    assert "secret-5" not in shown


def test_a_drivers_words_are_cut_after_its_secrets_are_stripped() -> None:
    request = csi.CreateVolumeRequest(secrets={"key": "secret-value"})
    shown = scrubbed("x" * (16 * 1024 - 6) + "secret-value" + "\x1b" * 1_000_000, request)
    assert shown == "x" * (16 * 1024 - 6) + "***str…"
