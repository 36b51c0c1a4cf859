"""Roles that other people have published, as data: rules, the provisioner's arguments and security context."""

from pathlib import Path
from typing import Any

import yaml

NAMES = sorted(file.stem for file in Path(__file__).parent.glob("*.yaml"))


def chart(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text())
    return (chart(found["roles of"]) if "roles of" in found else {}) | found


def roles(found: dict[str, Any], names: dict[str, str], account: str, namespace: str) -> list[dict[str, Any]]:
    """The objects, by the names of the ClusterRole, of the Role, and of the binding of each."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    objects = []
    for kind, part, place in (("ClusterRole", "cluster", {}), ("Role", "role", {"namespace": namespace})):
        head = {"apiVersion": "rbac.authorization.k8s.io/v1"}
        metadata = {"name": names[part]} | place
        objects.append({**head, "kind": kind, "metadata": metadata, "rules": found[f"{part} rules"]})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": names[part]}
        metadata = {"name": names[f"{part} binding"]} | place
        binding = {"kind": f"{kind}Binding", "metadata": metadata, "subjects": [subject], "roleRef": reference}
        objects.append(head | binding)
    return objects
