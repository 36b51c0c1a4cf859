"""`csi-provisioner check`: what the flags need, and what of it is there (design.md 8)."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from csi_provisioner.commands import check
from csi_provisioner.logs import log
from tests.installation import CLASS, NAMESPACE, Installation


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> dict[str, dict[str, Any]]:
        """By what each is about."""
        found = json.loads(self.out)
        assert found["version"] == 1
        assert found["complete"] == (self.code == 0)
        return {line["about"]: line for line in found["checks"]}

    def status(self, about: str) -> str:
        return str(self.lines[about]["status"])

    def text(self, about: str) -> str:
        return str(self.lines[about]["text"])


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
def ask(site: Installation, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.setattr(log, "quiet", True)

    async def ask_(*flags: str, output: str = "json", **environ: str) -> Answer:
        everything = [f"--csi-address={site.cluster.socket(site.config)}", f"--kubeconfig={tmp_path / 'kubeconfig'}"]
        asked = check.COMMAND.read([*everything, f"-o{output}", *flags], environ, check.wanted_of)
        code = asked if isinstance(asked, int) else await check.COMMAND.answered(check.answer, *asked)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return ask_


async def test_all_is_there(site: Installation, ask: Ask) -> None:
    site.storage_class()
    found = await ask("--leader-election", "--leader-election-namespace=ns")
    assert found.code == 0
    for about in (
        "driver sandbox.csi.example.com",
        "capability CREATE_DELETE_VOLUME",
        "right to list persistentvolumeclaims",
        "right to create leases.coordination.k8s.io in namespace ns",
        "right to update leases.coordination.k8s.io sandbox-csi-example-com in namespace ns",
        "class fast",
    ):
        assert found.status(about) == "ok", about
    assert site.requests.of("create") == [], "it changes nothing"
    assert {call.rpc for call in site.driver.calls} <= {
        "GetPluginInfo",
        "GetPluginCapabilities",
        "ControllerGetCapabilities",
    }


async def test_a_needed_right_that_is_missing_comes_with_the_rule_to_add(site: Installation, ask: Ask) -> None:
    site.api.denied.add(("create", "persistentvolumes"))
    found = await ask()
    assert found.code == 3
    assert found.status("right to create persistentvolumes") == "missing"
    rule = 'add {apiGroups: [""], resources: [persistentvolumes], verbs: [create]} (kustomize/base has it)'
    assert found.text("right to create persistentvolumes") == rule


async def test_a_right_that_is_not_needed_says_what_does_not_work(site: Installation, ask: Ask) -> None:
    site.api.denied.add(("patch", "events"))
    found = await ask()
    assert found.code == 0
    line = found.lines["right to patch events"]
    assert (line["status"], line["needed"]) == ("missing", False)
    assert line["text"].startswith("repeats of an event are not counted; add ")


async def test_what_people_read_fits_its_columns(site: Installation, ask: Ask) -> None:
    site.api.denied.add(("list", "nodes"))
    found = await ask("--enable-capacity", output="text", NAMESPACE="ns", POD_NAME="p")
    assert found.code == 3
    assert found.err == "Something is missing.\n"
    [line] = [line for line in found.out.splitlines() if "right to list nodes" in line]
    assert line.startswith("missing ")


async def test_without_a_driver_the_cluster_is_asked_all_the_same(site: Installation, ask: Ask) -> None:
    site.kill_driver()
    site.storage_class()
    found = await ask(f"--provisioner={site.config.name}")
    assert found.code == 3
    [line] = [line for line in found.lines.values() if line["about"].startswith("driver at ")]
    assert line["status"] == "missing"
    assert found.status("class fast") == "ok"
    found = await ask()
    assert found.code == 3
    assert found.status("classes") == "not known"


async def test_another_driver_than_the_one_that_is_wanted_is_missing(ask: Ask) -> None:
    found = await ask("--provisioner=other.example.com")
    assert found.code == 3
    assert "correct --provisioner" in found.text("driver other.example.com")


async def test_a_driver_that_makes_no_volumes_is_told(site: Installation, ask: Ask) -> None:
    await site.serve(msgspec.structs.replace(site.config, controller=("GET_CAPACITY",)))
    found = await ask()
    assert found.code == 3
    assert found.status("capability CREATE_DELETE_VOLUME") == "missing"
    assert found.status("capability CLONE_VOLUME") == "off"


async def test_a_cluster_without_snapshots_has_them_off(site: Installation, ask: Ask) -> None:
    site.objects.kinds.remove(site.objects.kinds.named("VolumeSnapshot"))
    found = await ask()
    assert found.code == 0
    assert found.status("kind VolumeSnapshot") == "off"


async def test_what_a_cluster_without_attributes_classes_switches_off_needs_no_right(
    site: Installation, ask: Ask
) -> None:
    site.objects.kinds.remove(site.objects.kinds.named("VolumeAttributesClass"))
    found = await ask()
    assert found.status("kind VolumeAttributesClass") == "off"
    right = "right to get volumeattributesclasses.storage.k8s.io"
    assert right not in found.lines
    assert right in (await ask("--feature-gates=VolumeAttributesClass=true")).lines


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_reference_grants_may_be_served_in_either_version(site: Installation, ask: Ask, version: str) -> None:
    kinds = site.objects.kinds
    kinds.add(replace(kinds.named("ReferenceGrant"), versions=(version,), heads={}))
    found = await ask("--feature-gates=CrossNamespaceVolumeDataSource=true")
    assert found.status("kind ReferenceGrant") == "ok"


async def test_a_class_that_no_claim_can_use_is_told(site: Installation, ask: Ask) -> None:
    parameters = {"csi.storage.k8s.io/nonsense": "x"}
    site.storage_class("broken", parameters=parameters)
    found = await ask()
    assert found.status("class broken") == "missing"
    assert "csi.storage.k8s.io/nonsense" in found.text("class broken")


def _secret(name: str, namespace: str) -> dict[str, str]:
    prefix = "csi.storage.k8s.io/provisioner-secret"
    return {f"{prefix}-name": name, f"{prefix}-namespace": namespace}


async def test_a_class_with_a_secret_needs_it_and_the_right_to_read_it(site: Installation, ask: Ask) -> None:
    site.storage_class("secret", parameters=_secret("key", NAMESPACE))
    found = await ask()
    assert found.code == 0
    assert found.status("right to get secrets in namespace default") == "ok"
    assert found.status("secret default/key") == "missing"
    site.secret("key")
    found = await ask()
    assert found.status("secret default/key") == "ok"
    site.api.denied.add(("get", "secrets"))
    found = await ask()
    assert "claims of class secret fail; add" in found.text("right to get secrets in namespace default")
    assert "(kustomize/components/secrets has it)" in found.text("right to get secrets in namespace default")


async def test_a_template_needs_secrets_of_all_namespaces(site: Installation, ask: Ask) -> None:
    site.storage_class("secret", parameters=_secret("${pvc.name}", "${pvc.namespace}"))
    found = await ask()
    assert found.status("right to get secrets") == "ok"
    assert not [about for about in found.lines if about.startswith("secret ")]


async def test_a_right_that_nobody_tells_of_is_not_known(site: Installation, ask: Ask) -> None:
    def refuse(_asked: str, _agent: str) -> None:
        raise AssertionError

    site.api.on_review = refuse
    found = await ask()
    assert found.status("right to create persistentvolumes") == "not known"
    assert found.code == 0


async def test_an_api_server_that_cannot_be_asked_is_an_error(site: Installation, ask: Ask) -> None:
    found = await ask("--kubeconfig=", "--master=http://127.0.0.1:9")
    assert found.code == 1
    assert "cannot connect to 127.0.0.1 port 9" in found.err
    assert site.requests.of() == []


@pytest.mark.parametrize("flag", ["-oyaml", "--no-such-flag", "--timeout=0"])
async def test_wrong_flags_are_told(ask: Ask, flag: str) -> None:
    assert (await ask(flag)).code == 2


async def test_other_classes_are_not_looked_at(site: Installation, ask: Ask) -> None:
    site.objects.create(CLASS, {"metadata": {"name": "other"}, "provisioner": "other.example.com"})
    found = await ask()
    assert "class other" not in found.lines
    assert found.status("classes") == "off"
