"""Every metric and label that the rules and the dashboard name is in a real scrape; each alert says what to do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from csi_provisioner.settings import CapacitySettings, ElectionSettings, RetrySettings
from tests.installation import CLAIM, NAMESPACE, Installation
from tests.observability.promql import groupings, mentioned, selectors

FOLDER = Path(__file__).parent.parent.parent / "docs" / "how-to" / "observability"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
# What Prometheus adds to each series, and what it takes apart.
TARGET_LABELS = {"job", "instance", "namespace"}
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{title} {target['refId']}": target["expr"] for title, target in TARGETS
}


class Scrape:
    """Series names with their labels and the values of each label."""

    def __init__(self, text: str) -> None:
        self.labels: dict[str, dict[str, set[str]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                known = self.labels.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    known.setdefault(label, set()).add(value)

    def check(self, expression: str, more: set[str]) -> None:
        found = list(selectors(expression))
        assert found, expression
        known = set(TARGET_LABELS)
        for selector in found:
            assert selector.metric in self.labels, f"no {selector.metric} in a scrape: {expression}"
            labels = self.labels[selector.metric]
            known |= labels.keys()
            for label, operator, value in selector.matchers:
                assert label in labels.keys() | TARGET_LABELS, f"{selector.metric} has no label {label}"
                if operator == "=":
                    assert value in labels[label], f"{selector.metric} has never {label}={value}"
        assert groupings(expression) <= known, expression
        assert more <= known, expression


async def test_every_metric_and_label_is_in_a_real_scrape(site: Installation) -> None:
    """One scrape for all: a leader with storage capacity that has made and deleted volumes, and failed."""
    site.cluster.node("node-1", site.config.name, zone="a")
    site.storage_class()
    site.claim("first")
    await site.start(
        election=ElectionSettings(enabled=True, namespace=NAMESPACE, own_namespace=NAMESPACE),
        capacity=CapacitySettings(enabled=True, namespace=NAMESPACE, ownerref_level=-1, immediate_binding=True),
        retries=RetrySettings(start=300.0, adaptive=True, class_workers=(("fast", 50),)),
        call_timeout=300.0,
    )
    await site.bound("first")
    await site.until(lambda: site.calls("GetCapacity"))
    site.fault("INTERNAL", match="failing")
    site.claim("failing")
    await site.event("failing", "ProvisioningFailed")
    site.fault(match="slow", delay=200.0)
    site.claim("slow")  # lanes have series while they have calls
    site.delete(CLAIM, "first")
    await site.until(lambda: site.calls("DeleteVolume"))
    await site.rest(5)
    scrape = Scrape(await site.scraped())
    legends = {f"{title} {target['refId']}": mentioned(target["legendFormat"]) for title, target in TARGETS}
    for rule in RULES:
        legends[rule["alert"]] = mentioned(json.dumps(rule["annotations"]))
    for name, expression in EXPRESSIONS.items():
        scrape.check(expression, legends[name])


def test_each_alert_says_what_to_do() -> None:
    for rule in RULES:
        assert len(rule["annotations"]["runbook"]) > 60, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
    assert "kube-controller-manager" in next(r for r in RULES if "Binding" in r["alert"])["annotations"]["runbook"]


@pytest.mark.parametrize(
    "subject",
    ["oldest_pending", "overhead", "bind_wait", "orphans", "master_status", "driver_ready", "capacities", "start_time"],
)
def test_there_is_an_alert_for_each_subject(subject: str) -> None:
    assert any(subject in rule["expr"] for rule in RULES)


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    used = {(panel["gridPos"]["x"] + at, panel["gridPos"]["y"] + down) for panel in PANELS
            for at in range(panel["gridPos"]["w"]) for down in range(panel["gridPos"]["h"])}  # fmt: skip
    assert len(used) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in PANELS)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    named = set(re.findall(r"\$\{?(\w+)", json.dumps(PANELS)))
    assert named - {"__rate_interval"} <= variables


def test_the_readme_tells_of_each_alert() -> None:
    text = (FOLDER / "README.md").read_text()
    assert [rule["alert"] for rule in RULES if f"`{rule['alert']}`" not in text] == []
