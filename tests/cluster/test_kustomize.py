"""What `kustomize/` has, as kubectl renders it and the API server takes it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from csi_provisioner import __version__
from tests.charts import chart, roles
from tests.cluster.controlplane import COMPONENTS, KUSTOMIZE, RIGHTS, ControlPlane, until

pytestmark = pytest.mark.cluster

Object = dict[str, Any]
FOLDERS = sorted(str(file.parent.relative_to(KUSTOMIZE)) for file in KUSTOMIZE.rglob("kustomization.yaml"))
ALL = sorted(folder.name for folder in (KUSTOMIZE / "components").iterdir())
# In a DaemonSet nobody leads, and nobody else sees the nodes.
CENTRAL = [name for name in ALL if name not in ("sidecar", "node-deployment")]
ON_NODES = [name for name in ALL if name not in ("sidecar", "leader-election")]
OF_UPSTREAM = "external-provisioner"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folder, to be changed, and beside it place for a kustomization."""
    shutil.copytree(KUSTOMIZE, tmp_path / "kustomize")
    return tmp_path


def check(plane: ControlPlane, objects: list[Object]) -> None:
    """The API server would take them, each field known."""
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    plane.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
                  stdin=given)  # fmt: skip


def workload(kind: str, *containers: Object, labelled: bool = True) -> Object:
    """Of a driver's author, who has no provisioner."""
    labels = {"csi-provisioner.io/sidecar": "true"} if labelled else {}
    pod = {"containers": containers, "volumes": [{"name": "socket-dir", "emptyDir": {}}]}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "driver", "namespace": "default", "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": "driver"}},
            "template": {"metadata": {"labels": {"app": "driver"}}, "spec": pod},
        },
    }


def together(plane: ControlPlane, copy: Path, given: Object, *components: str, **fields: Any) -> list[Object]:
    """The base and the driver's workload with these components."""
    (copy / "workload.yaml").write_text(yaml.safe_dump(given))
    parts = [f"kustomize/components/{name}" for name in components]
    rest = {"resources": ["kustomize/base", "workload.yaml"], "components": parts}
    return plane.rendered(copy, rest | fields)


def containers(objects: list[Object], kind: str) -> list[Object]:
    [found] = [obj for obj in objects if obj["kind"] == kind]
    return list(found["spec"]["template"]["spec"]["containers"])


DRIVER = {"name": "driver", "image": "driver"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_builds_and_the_api_server_takes_it(control_plane: ControlPlane, folder: str) -> None:
    objects = [obj for obj in control_plane.rendered(KUSTOMIZE / folder) if obj]
    if objects:  # a component may only change others
        check(control_plane, objects)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_a_labelled_workload_gets_our_container_with_all_components(
    control_plane: ControlPlane, copy: Path, kind: str
) -> None:
    components = ON_NODES if kind == "DaemonSet" else CENTRAL
    objects = together(control_plane, copy, workload(kind, DRIVER), "sidecar", *components, namePrefix="two-")
    check(control_plane, objects)
    ours, driver = containers(objects, kind)
    assert driver == DRIVER
    arguments = {"--csi-address=/csi/csi.sock", "--http-endpoint=:8080", "--enable-capacity",
                 "--feature-gates=CrossNamespaceVolumeDataSource=true",
                 f"--capacity-ownerref-level={2 if kind == 'Deployment' else 1}"}  # fmt: skip
    more = ("--node-deployment", "--strict-topology", "--immediate-topology=false")
    assert set(ours["args"]) == arguments.union(more if kind == "DaemonSet" else ["--leader-election"])
    told = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in ours["env"]}
    pod = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "NAMESPACE": "metadata.namespace"}
    assert told == pod | ({"NODE_NAME": "spec.nodeName"} if kind == "DaemonSet" else {})
    probed = {ours[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness")}
    assert (probed, ours["readinessProbe"]["httpGet"]["path"]) == ({"/livez"}, "/readyz")
    assert ours["volumeMounts"] == [{"name": "socket-dir", "mountPath": "/csi"}]


THEIRS = {"name": "csi-provisioner", "image": "registry.k8s.io/sig-storage/csi-provisioner:v6.3.0", "args": ["-v=5"]}


def test_a_provisioner_that_is_there_becomes_ours(control_plane: ControlPlane, copy: Path) -> None:
    given = workload("Deployment", DRIVER, THEIRS)
    ours, driver = containers(together(control_plane, copy, given, "sidecar", "leader-election"), "Deployment")
    assert (ours["image"], ours["args"][-1], driver) == ("csi-provisioner", "--leader-election", DRIVER)


def test_one_line_swaps_the_image_alone(control_plane: ControlPlane, copy: Path) -> None:
    given = workload("Deployment", DRIVER, THEIRS, labelled=False)
    swap = {"name": "registry.k8s.io/sig-storage/csi-provisioner", "newName": "example.com/ours", "newTag": "1"}
    objects = together(control_plane, copy, given, images=[swap])
    assert containers(objects, "Deployment") == [DRIVER, THEIRS | {"image": "example.com/ours:1"}]


def test_the_overlays_take_the_image_of_this_version(control_plane: ControlPlane) -> None:
    for overlay, kind in (
        ("controller", "Deployment"),
        ("hostpath", "StatefulSet"),
        ("hostpath-distributed", "DaemonSet"),
    ):
        ours, *_ = containers(control_plane.rendered(KUSTOMIZE / "overlays" / overlay), kind)
        assert ours["image"] == f"registry.example.com/csi-provisioner:{__version__}"


def test_a_workload_without_the_label_stays_as_it_is(control_plane: ControlPlane, copy: Path) -> None:
    objects = together(control_plane, copy, workload("Deployment", DRIVER, labelled=False), "sidecar", *CENTRAL)
    assert containers(objects, "Deployment") == [DRIVER]


def test_arguments_before_the_container_are_a_build_error(control_plane: ControlPlane, copy: Path) -> None:
    with pytest.raises(RuntimeError, match="test failed"):
        together(control_plane, copy, workload("Deployment", DRIVER), "capacity", "sidecar")


def test_a_pod_security_of_restricted_admits_our_container(control_plane: ControlPlane, copy: Path) -> None:
    control_plane.apply({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "restricted", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    })  # fmt: skip
    spec = {"volumes": [{"name": "socket-dir", "emptyDir": {}}]}
    pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ours", "namespace": "restricted"}}
    ours = containers(together(control_plane, copy, workload("Deployment"), "sidecar"), "Deployment")
    check(control_plane, [pod | {"spec": spec | {"containers": ours}}])
    for container in ours:
        del container["securityContext"]["seccompProfile"]
    with pytest.raises(RuntimeError, match="violates PodSecurity"):
        check(control_plane, [pod | {"spec": spec | {"containers": ours}}])


def given_rights(objects: list[Object]) -> Iterator[tuple[str, str]]:
    """Kind of role and resource."""
    for obj in objects:
        for rule in obj.get("rules", []):
            yield from ((obj["kind"], resource) for resource in rule["resources"])


def test_capacity_is_published_in_one_namespace(control_plane: ControlPlane) -> None:
    given = set(given_rights(control_plane.rendered(KUSTOMIZE / "components" / "capacity")))
    assert given == {("Role", "csistoragecapacities"), ("Role", "pods"), ("Role", "replicasets")}


def test_node_deployment_does_not_see_nodes(control_plane: ControlPlane, copy: Path) -> None:
    central = set(given_rights(together(control_plane, copy, workload("DaemonSet"), "sidecar")))
    less = central - set(
        given_rights(together(control_plane, copy, workload("DaemonSet"), "sidecar", "node-deployment"))
    )
    assert less == {("ClusterRole", "nodes"), ("ClusterRole", "csinodes")}


def test_they_go_together_in_the_drivers_namespace(control_plane: ControlPlane, copy: Path) -> None:
    objects = together(
        control_plane, copy, workload("Deployment", labelled=False), *COMPONENTS, namespace="storage", namePrefix="my-"
    )
    [account] = [obj["metadata"] for obj in objects if obj["kind"] == "ServiceAccount"]
    subjects = [(one["namespace"], one["name"]) for obj in objects for one in obj.get("subjects", [])]
    assert subjects == [("storage", account["name"])] * 7
    assert account["name"] == "my-csi-provisioner-sidecar"


def selectors(objects: list[Object]) -> dict[str, Object]:
    """Of what selects pods by labels, and of the monitor, which selects Services."""
    found = {}
    for obj in objects:
        spec = obj.get("spec", {})
        if obj["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "PodDisruptionBudget", "ServiceMonitor"):
            found[obj["kind"]] = spec["selector"]["matchLabels"]
        elif obj["kind"] == "NetworkPolicy":
            found[obj["kind"]] = spec["podSelector"]["matchLabels"]
        elif obj["kind"] == "Service":
            found[obj["kind"]] = spec["selector"]
    return found


@pytest.mark.parametrize("overlay", ["controller", "hostpath", "hostpath-distributed"])
def test_what_selects_pods_selects_those_of_one_driver(control_plane: ControlPlane, copy: Path, overlay: str) -> None:
    file = copy / "kustomize" / "overlays" / overlay / "kustomization.yaml"
    written = yaml.safe_load(file.read_text())
    more = [f"../../components/{name}" for name in ("monitoring", "network-policy", "pdb")]
    written["components"] = list(dict.fromkeys([*written["components"], *more]))
    found = selectors(control_plane.rendered(file.parent, _only(file, written)))
    kinds = {"Service", "ServiceMonitor", "NetworkPolicy", "PodDisruptionBudget"}
    assert kinds < set(found)
    assert {labels["app.kubernetes.io/instance"] for labels in found.values()} == {
        overlay.replace("controller", "example")
    }


def _only(file: Path, written: Object) -> Object:
    """JSON is YAML: the file stays the only one of its folder."""
    file.write_text(json.dumps(written))
    return written


def test_the_hostpath_overlays_name_their_driver_everywhere(control_plane: ControlPlane) -> None:
    drivers = []
    for overlay in ("hostpath", "hostpath-distributed"):
        objects = control_plane.rendered(KUSTOMIZE / "overlays" / overlay)
        [name] = [obj["metadata"]["name"] for obj in objects if obj["kind"] == "CSIDriver"]
        named = [obj.get("provisioner") or obj.get("driver") for obj in objects if obj["kind"].endswith("Class")]
        assert set(named) == {name}
        kind = "StatefulSet" if overlay == "hostpath" else "DaemonSet"
        ours, driver, *_ = containers(objects, kind)
        assert f"--drivername={name}" in driver["args"]
        assert ours["securityContext"]["runAsUser"] == 0
        drivers.append(name)
    assert len(set(drivers)) == 2


def subjects(objects: list[Object]) -> set[tuple[str, str]]:
    return {(one["namespace"], one["name"]) for obj in objects for one in obj.get("subjects", [])}


def for_account(plane: ControlPlane, copy: Path, account: str, namespace: str) -> list[Object]:
    """overlays/rights-only, with the one thing set."""
    folder = copy / "kustomize" / "overlays" / "rights-only"
    subject = yaml.safe_load((folder / "subject.yaml").read_text())
    subject["data"] = {"account": account, "namespace": namespace}
    (folder / "subject.yaml").write_text(yaml.safe_dump(subject))
    return plane.rendered(folder)


def test_rights_alone_are_for_nobody_until_the_subject_is_set(control_plane: ControlPlane, copy: Path) -> None:
    as_they_stand = control_plane.rendered(KUSTOMIZE / "overlays" / "rights-only")
    assert {obj["kind"] for obj in as_they_stand} == RIGHTS - {"ServiceAccount"}
    assert subjects(as_they_stand) == {("default", "set-the-account-of-the-chart")}
    found = for_account(control_plane, copy, "ebs-csi-controller-sa", "kube-system")
    assert subjects(found) == {("kube-system", "ebs-csi-controller-sa")}
    assert {obj["metadata"]["namespace"] for obj in found if obj["kind"].startswith("Role")} == {"kube-system"}
    check(control_plane, found)


# ---- side by side


def may(plane: ControlPlane, account: tuple[str, str]) -> set[tuple[str, str]]:
    """All that an account may do in its namespace and in the cluster: verb and resource.group."""
    namespace, name = account
    user = f"--as=system:serviceaccount:{namespace}:{name}"
    found = set()
    for line in plane.kubectl("auth", "can-i", "--list", "--no-headers", user, "-n", namespace).splitlines():
        resource, *_, verbs = (part.strip() for part in line.replace("[", "\t[").split("\t"))
        found |= {(verb, resource) for verb in verbs.strip("[]").split()}
    return found


def owed(objects: list[Object], account: tuple[str, str]) -> set[tuple[str, str]]:
    """What the objects grant to it."""
    bound = [obj["roleRef"] for obj in objects if account in subjects([obj])]
    return {
        (verb, _named(resource, group))
        for obj in objects
        if any((role["kind"], role["name"]) == (obj["kind"], obj["metadata"]["name"]) for role in bound)
        for rule in obj["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def _named(resource: str, group: str) -> str:
    """As kubectl does: a.group/status."""
    resource, slash, part = resource.partition("/")
    return f"{resource}.{group}".rstrip(".") + slash + part


def of_upstream() -> list[Object]:
    found = chart(OF_UPSTREAM)
    names = found["names"]
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": names["account"], "namespace": "default"},
    }
    return [account, *roles(found, names, names["account"], "default")]


PAIRS = {
    "two drivers": ("overlays/hostpath", "overlays/controller"),
    "one driver twice": ("overlays/hostpath", "overlays/hostpath-distributed"),
    "the base and upstream": ("base", OF_UPSTREAM),
    "rights alone and a driver": ("overlays/rights-only", "overlays/controller"),
}


@pytest.fixture
def bare_plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """Without the rights of the tests' own provisioner, which are those of the base."""
    control_plane.delete(*control_plane.rights)
    yield control_plane
    control_plane.apply(*control_plane.rights)


@pytest.mark.parametrize("pair", PAIRS)
def test_neither_of_two_takes_rights_from_the_other(bare_plane: ControlPlane, copy: Path, pair: str) -> None:
    plane = bare_plane
    parts = {}
    for name in PAIRS[pair]:
        if name == OF_UPSTREAM:
            parts[name] = of_upstream()
        elif name.endswith("rights-only"):
            parts[name] = for_account(plane, copy, "of-a-chart", "kube-system")
        else:
            parts[name] = plane.rendered(KUSTOMIZE / name)
    accounts = {name: next(iter(subjects(objects))) for name, objects in parts.items()}
    assert all(subjects(objects) == {accounts[name]} for name, objects in parts.items())
    anybody = may(plane, ("default", "anybody"))
    there: set[str] = set()

    def all_as_they_should() -> bool:
        for name, account in accounts.items():
            expected = owed(parts[name], account) if name in there else set()
            if may(plane, account) - anybody != expected:
                return False
        return True

    first, second = parts
    for step in (first, second, first, first, second, first):
        objects = parts[step]
        if step in there:
            plane.delete(*objects)
        else:
            plane.apply(*objects)
        there ^= {step}
        until(f"each has its own rights after {step}", all_as_they_should)
    assert there == set()
