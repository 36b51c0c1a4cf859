"""The rights that `kustomize/` grants to the daemon, as its files have them."""

from typing import NamedTuple

import yaml

from tests.cluster.controlplane import COMPONENTS, KUSTOMIZE


class Granted(NamedTuple):
    """One verb of one rule."""

    folder: str
    verb: str
    resource: str
    group: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


def granted() -> list[Granted]:
    return [
        Granted(folder, verb, resource, group)
        for folder in ["base", *(f"components/{name}" for name in COMPONENTS)]
        for file in sorted((KUSTOMIZE / folder).glob("*s.yaml"))
        for document in yaml.safe_load_all(file.read_text())
        for rule in (document.get("rules", []) if isinstance(document, dict) else [])
        for resource in rule["resources"]
        for group in rule["apiGroups"]
        for verb in rule["verbs"]
    ]
