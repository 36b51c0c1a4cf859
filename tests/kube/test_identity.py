"""The identity of a leader: the same at every start of one container, and of no other process (process.md 6.3)."""

from pathlib import Path
from uuid import uuid4

import pytest

from csi_provisioner.kube.identity import container, held, sanitised, stable

UID = "ee9951df-fb87-4568-98f1-bde2c62fbad6"
STATIC = "0123456789abcdef0123456789abcdef"  # of a static pod: without dashes


def line(root: str, mounted: str = "/dev/termination-log") -> str:
    return f"12341 12307 8:9 {root} {mounted} rw,relatime - ext4 /dev/sda9 rw\n"


OTHERS = (
    line("/", "/") + line(f"/var/lib/kubelet/pods/{UID}/etc-hosts", "/etc/hosts")
    + line(f"/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/socket-dir", "/csi")
)  # fmt: skip
FOUND = {
    "as most nodes have it": f"/var/lib/kubelet/pods/{UID}/containers/po/8a03d371",
    "a partition of its own": f"/pods/{UID}/containers/po/8a03d371",
    "k0s": f"/var/lib/k0s/kubelet/pods/{UID}/containers/po/00000000",
    "MicroK8s": f"/var/snap/microk8s/common/var/lib/kubelet/pods/{UID}/containers/po/8a03d371",
    "kind": f"/docker/volumes/0123/_data/lib/kubelet/pods/{UID}/containers/po/8a03d371",
    "another container first in the path": f"/pods/{UID}/containers/xy/8a03d371/pods/{UID}/containers/po/8a03d371",
}


@pytest.mark.parametrize("root", FOUND.values(), ids=FOUND.keys())
@pytest.mark.parametrize("mounted", ["/dev/termination-log", "/somewhere/else"])
def test_the_container_is_read_from_what_the_kubelet_mounts(root: str, mounted: str) -> None:
    assert container(OTHERS + line(root, mounted)) == (UID, "po")


def test_a_static_pod_has_a_uid_without_dashes() -> None:
    assert container(line(f"/var/lib/kubelet/pods/{STATIC}/containers/po/8a03d371")) == (STATIC, "po")


NOT_FOUND = {
    "nothing": "",
    "no such line": OTHERS,
    "two containers": line(f"/pods/{UID}/containers/po/8a03d371") + line(f"/pods/{UID}/containers/other/8a03d371"),
    "two pods": line(f"/pods/{UID}/containers/po/8a03d371") + line(f"/pods/{STATIC}/containers/po/8a03d371"),
    "something below it": line(f"/pods/{UID}/containers/po/8a03d371/deeper"),
    "no start of a container": line(f"/pods/{UID}/containers/po/8a03d37"),
    "in the mount point only": line("/elsewhere", f"/pods/{UID}/containers/po/8a03d371"),
    "short lines": "12341\n12341 12307 8:9\n",
}


@pytest.mark.parametrize("mounts", NOT_FOUND.values(), ids=NOT_FOUND.keys())
def test_what_does_not_name_one_container_is_not_trusted(mounts: str) -> None:
    assert container(mounts) is None
    assert stable("host", mounts) is None


def test_the_same_container_named_twice_is_one() -> None:
    one = line(f"/pods/{UID}/containers/po/8a03d371")
    assert container(one + one) == (UID, "po")


def identity_of(container_name: str, start: str = "8a03d371", uid: str = UID, hostname: str = "node.example") -> str:
    found = stable(hostname, line(f"/var/lib/kubelet/pods/{uid}/containers/{container_name}/{start}"))
    assert found is not None
    return found


def test_every_start_of_one_container_has_the_same_identity() -> None:
    assert identity_of("po", "8a03d371") == identity_of("po", "11111111")


def test_containers_and_pods_of_one_host_differ() -> None:
    """On the host's network all pods of a node have one host name."""
    other = UID.replace("ee", "ff")
    assert len({identity_of("po"), identity_of("other"), identity_of("po", uid=other)}) == 3


def test_an_identity_begins_with_the_host_name_and_ends_in_eight_hex_digits() -> None:
    name, _, suffix = identity_of("po").rpartition("-")
    assert name == "node-example"
    assert len(suffix) == 8
    int(suffix, 16)


@pytest.mark.parametrize(
    ("driver", "name"), [("mock.csi.example.com", "mock-csi-example-com"), ("foo/bar_x.y.", "foo-bar-x-y-X")]
)
def test_the_lease_is_named_after_the_driver(driver: str, name: str) -> None:
    assert sanitised(driver) == name


# ---- as long as it is used


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(line(f"/var/lib/kubelet/pods/{uuid4()}/containers/po/8a03d371"))
    return path


def test_a_second_process_of_the_container_has_a_name_of_its_own(mounts: Path) -> None:
    with held("host", mounts) as first:
        with held("host", mounts) as second:
            assert second != first
            assert second.startswith("host-")
        assert first == stable("host", mounts.read_text())


def test_the_identity_is_free_again_afterwards(mounts: Path) -> None:
    with held("host", mounts) as first:
        pass
    with held("host", mounts) as again:
        assert again == first


def test_outside_of_a_container_every_start_has_a_new_identity(tmp_path: Path) -> None:
    nowhere = tmp_path / "missing"
    with held("host.example", nowhere) as first, held("host.example", nowhere) as second:
        assert first != second
        assert first.startswith("host-example-")
