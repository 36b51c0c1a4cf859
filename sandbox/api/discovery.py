"""What the API says about itself: its version, groups and resources, and just enough OpenAPI for kubectl.

Pages are made from the registry when asked for, so custom resources show at once. Of OpenAPI there is only what kubectl
looks up before it applies: that patches take `fieldValidation`, so that checking is left to the server.
"""

import msgspec

from sandbox.api.errors import Object, no_such_path
from sandbox.api.kinds import Kind, Registry

# kubectl compares versions and warns of a server that is too old for it.
_VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0-sandbox",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def page(path: str, kinds: Registry) -> bytes | None:
    """The discovery page at `path`; None for the path of a resource."""
    match path.strip("/").split("/"):
        case ["version"]:
            found: Object | None = _VERSION
        # Not JSON: probes look at the status only.
        case ["healthz" | "livez" | "readyz"]:
            return b"ok"
        case ["api"]:
            found = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            # A dict keeps the order of the registry and drops repeats.
            groups = dict.fromkeys(kind.group for kind in kinds if kind.group)
            found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name, kinds) for name in groups]}
        case ["apis", group]:
            # A group without kinds is unknown: its definition may have been deleted just now.
            if all(kind.group != group for kind in kinds):
                raise no_such_path()
            found = {"kind": "APIGroup", "apiVersion": "v1", **_group(group, kinds)}
        case ["api", version]:
            found = _resources("", version, kinds)
        case ["apis", group, version]:
            found = _resources(group, version, kinds)
        case ["openapi", "v3"]:
            roots = dict.fromkeys(_root(kind.group, version) for kind in kinds for version in kind.versions)
            found = {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
        case ["openapi", "v3", "api", version]:
            found = _openapi("", version, kinds)
        case ["openapi", "v3", "apis", group, version]:
            found = _openapi(group, version, kinds)
        case _:
            return None
    return msgspec.json.encode(found)


def _group(name: str, kinds: Registry) -> Object:
    versions = dict.fromkeys(version for kind in kinds if kind.group == name for version in kind.versions)
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _of(group: str, version: str, kinds: Registry) -> list[Kind]:
    found = [kind for kind in kinds if kind.group == group and version in kind.versions]
    if not found:
        raise no_such_path()
    return found


def _resources(group: str, version: str, kinds: Registry) -> Object:
    resources: list[Object] = []
    for kind in _of(group, version, kinds):
        entry: Object = {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.name,
            "verbs": _VERBS,
        }
        # So that `kubectl get pvc` finds it.
        resources.append(entry | ({"shortNames": list(kind.short)} if kind.short else {}))
        if kind.status:
            resources.append(
                entry | {"name": f"{kind.plural}/status", "singularName": "", "verbs": ["get", "patch", "update"]}
            )
    version_name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version_name, "resources": resources}


def _root(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _openapi(group: str, version: str, kinds: Registry) -> Object:
    paths: Object = {}
    # kubectl looks for this parameter in the schema, and validates itself if it is missing.
    validation = {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for kind in _of(group, version, kinds):
        scope = "namespaces/{namespace}/" if kind.namespaced else ""
        operation = {
            "operationId": f"patch{kind.name}",
            "parameters": [validation],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind.name},
        }
        paths[f"/{_root(group, version)}/{scope}{kind.plural}/{{name}}"] = {"patch": operation}
    info = {"title": "csi-provisioner sandbox", "version": _VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
