"""From command line and environment to settings: what each flag sets, which setups are refused (process.md 1 to 3)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from csi_provisioner.configuration import log_settings, read
from csi_provisioner.fatal import Fatal
from csi_provisioner.flags import FLAGS, in_force
from csi_provisioner.settings import Gates, LogSettings, Settings


def settings(*arguments: str, pod_namespace_file: Path = Path("/nowhere"), **environ: str) -> Settings:
    found = read(
        FLAGS.parse(arguments), environ, log_settings(FLAGS.parse(arguments)), pod_namespace_file=pod_namespace_file
    )
    assert found is not None
    return found


def at(found: Settings, path: str) -> Any:
    value: Any = found
    for name in path.split("."):
        value = getattr(value, name)
    return value


def test_defaults_of_flags_are_those_of_the_settings() -> None:
    """process.md 1.3."""
    assert settings() == Settings()


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("--csi-address=/x", "csi.address", "/x"),
        ("--timeout=7s", "csi.timeout", 7.0),
        ("--provisioner=a.b", "csi.expected_driver", "a.b"),
        ("--kubeconfig=/k", "cluster.kubeconfig", "/k"),
        ("--master=https://m", "cluster.master", "https://m"),
        ("--kube-api-qps=5", "cluster.qps", 5.0),
        ("--kube-api-qps=0", "cluster.qps", None),
        ("--kube-api-qps=-1", "cluster.qps", None),
        ("--kube-api-qps=inf", "cluster.qps", None),
        ("--kube-api-qps=nan", "cluster.qps", None),
        ("--kube-api-burst=3", "cluster.burst", 3),
        ("--kube-api-capacity-qps=2.5", "cluster.capacity_qps", 2.5),
        ("--kube-api-capacity-qps=0", "cluster.capacity_qps", None),
        ("--kube-api-capacity-burst=9", "cluster.capacity_burst", 9),
        ("--volume-name-prefix=p", "provisioning.volume_name_prefix", "p"),
        ("--volume-name-uuid-length=5", "provisioning.volume_name_uuid_length", 5),
        ("--default-fstype=xfs", "provisioning.default_fstype", "xfs"),
        ("--strict-topology", "provisioning.strict_topology", True),
        ("--immediate-topology=false", "provisioning.immediate_topology", False),
        ("--extra-create-metadata", "provisioning.extra_create_metadata", True),
        ("--controller-publish-readonly", "provisioning.controller_publish_readonly", True),
        ("--prevent-volume-mode-conversion=0", "provisioning.prevent_volume_mode_conversion", False),
        ("--retry-interval-start=200ms", "retries.start", 0.2),
        ("--retry-interval-max=2s", "retries.maximum", 2.0),
        ("--worker-threads=0", "retries.workers", 0),
        ("--cloning-protection-threads=2", "retries.cloning_protection_workers", 2),
        ("--snapshot-orphan-sweep-interval=-1s", "retries.snapshot_sweep_interval", -1.0),
        ("--enable-capacity", "capacity.enabled", True),
        ("--capacity-controller-deployment-mode=central", "capacity.enabled", True),
        ("--capacity-threads=2", "capacity.threads", 2),
        (
            "--claim-annotation-prefix= a.test/, notk8s.io/x-,",
            "provisioning.claim_annotation_prefixes",
            ("a.test/", "notk8s.io/x-"),
        ),
        ("--capacity-poll-interval=2m", "capacity.poll_interval", 120.0),
        ("--capacity-for-immediate-binding", "capacity.immediate_binding", True),
        ("--capacity-ownerref-level=-1", "capacity.ownerref_level", -1),
        ("--node-deployment-immediate-binding=false", "nodes.immediate_binding", False),
        ("--node-deployment-base-delay=1s", "nodes.base_delay", 1.0),
        ("--node-deployment-max-delay=2s", "nodes.max_delay", 2.0),
        ("--leader-election", "election.enabled", True),
        ("--enable-leader-election", "election.enabled", True),
        ("--http-endpoint=:8080", "http.endpoint", ":8080"),
        ("--metrics-address=:8080", "http.endpoint", ":8080"),
        ("--metrics-address=:8080", "http.legacy", True),
        ("--metrics-path=/m", "http.path", "/m"),
        ("--status-page=false", "http.status_page", False),
        ("--enable-pprof", "http.pprof", True),
        ("-v4", "logging.verbosity", 4),
        ("--vmodule=claims=5", "logging.modules", (("claims", 5),)),
        ("--logging-format=json", "logging.json", True),
        ("--log-text-info-buffer-size=0Ki", "logging", LogSettings()),
        ("--shutdown-grace-period=0s", "shutdown_grace", 0.0),
        ("--automaxprocs", "csi.address", "/run/csi/socket"),
    ],
)
def test_each_flag_fills_its_field(argument: str, path: str, value: object) -> None:
    """process.md 1.3."""
    assert at(settings(argument), path) == value


@pytest.mark.parametrize(
    ("arguments", "environ", "path", "value"),
    [
        ([], {"CSI_ENDPOINT": "unix:///e"}, "csi.address", "/e"),
        (["--csi-address=/f"], {"CSI_ENDPOINT": "/e"}, "csi.address", "/f"),
        ([], {"CSI_ENDPOINT": ""}, "csi.address", "/run/csi/socket"),
        ([], {"KUBE_CONFIG_PATH": "/e"}, "cluster.kubeconfig", "/e"),
        (["--kubeconfig=/f"], {"KUBE_CONFIG_PATH": "/e"}, "cluster.kubeconfig", "/f"),
        (["--kubeconfig="], {"KUBE_CONFIG_PATH": "/e"}, "cluster.kubeconfig", "/e"),
        ([], {"KUBECONFIG": "/e"}, "cluster.fallback_kubeconfig", "/e"),
        ([], {"KUBECONFIG": "/e"}, "cluster.kubeconfig", ""),
        ([], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "cluster.service_host", "10.0.0.1"),
        ([], {"KUBERNETES_SERVICE_PORT": "443"}, "cluster.service_port", "443"),
        ([], {"NAMESPACE": "a", "POD_NAMESPACE": "b"}, "capacity.namespace", "a"),
        ([], {"POD_NAME": "p"}, "capacity.pod_name", "p"),
        (["--node-deployment"], {"NODE_NAME": "n"}, "nodes.node_name", "n"),
        ([], {"NODE_NAME": "n"}, "nodes.node_name", ""),
        (["--leader-election"], {"POD_NAMESPACE": "b", "NAMESPACE": "a"}, "election.namespace", "b"),
        (["--leader-election", "--leader-election-namespace=f"], {"POD_NAMESPACE": "b"}, "election.namespace", "f"),
        (["--leader-election"], {}, "election.namespace", "default"),
        ([], {}, "traces", False),
        ([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "traces", True),
        ([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, "traces", False),
    ],
)
def test_each_variable_fills_its_field(
    arguments: list[str], environ: Mapping[str, str], path: str, value: object
) -> None:
    """process.md 2."""
    assert at(settings(*arguments, **environ), path) == value


def test_the_namespace_is_that_of_the_pod(tmp_path: Path) -> None:
    """process.md 6.2."""
    file = tmp_path / "namespace"
    file.write_text(" storage\n")
    assert settings("--leader-election", pod_namespace_file=file).election.namespace == "storage"


def test_later_labels_replace_earlier_ones() -> None:
    """process.md 1.3."""
    found = settings("--leader-election", "--leader-election-labels=a:1,b:2", "--leader-election-labels=a:3")
    assert dict(found.election.labels) == {"a": "3", "b": "2"}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/run/csi/socket", "/run/csi/socket"),
        ("unix:///run/csi/socket", "/run/csi/socket"),
        ("unix:/run/csi/socket", "/run/csi/socket"),
        ("/" + "a" * 106, "/" + "a" * 106),
    ],
)
def test_every_form_of_an_address_is_read(given: str, path: str) -> None:
    """process.md 4.1."""
    assert settings(f"--csi-address={given}").csi.address == path
    assert settings(CSI_ENDPOINT=given).csi.address == path


@pytest.mark.parametrize(
    "given",
    [
        "csi.sock",
        "./csi.sock",
        "unix:csi.sock",
        "unix://csi.sock",
        "unix:",
        "tcp://a:1",
        "host:1",
        "dns:///a",
        "/" * 108,
    ],
)
def test_other_addresses_are_refused_and_named(given: str) -> None:
    """process.md 4.1."""
    for source, arguments, environ in (
        ("--csi-address", [f"--csi-address={given}"], {}),
        ("CSI_ENDPOINT", [], {"CSI_ENDPOINT": given}),
    ):
        with pytest.raises(Fatal, match="socket") as caught:
            settings(*arguments, **environ)
        assert caught.value.code == 1
        assert f"{source}={given}" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", Gates()),
        ("Topology=false", Gates(topology=False)),
        ("VolumeAttributesClass=true", Gates(volume_attributes_class_explicit=True)),
        ("VolumeAttributesClass=0", Gates(volume_attributes_class=False, volume_attributes_class_explicit=True)),
        ("CrossNamespaceVolumeDataSource=true", Gates(cross_namespace=True)),
        ("ReleaseLeaderElectionOnExit=true", Gates()),
        ("VolumeSnapshotTopology=true", Gates(snapshot_topology=True)),
        ("AllAlpha=true", Gates(cross_namespace=True, snapshot_topology=True)),
        ("AllAlpha=true,CrossNamespaceVolumeDataSource=false", Gates(snapshot_topology=True)),
        ("AllBeta=true", Gates()),
        ("HonorPVReclaimPolicy=false,Topology=true", Gates()),
    ],
)
def test_gates_fill_their_fields(given: str, expected: Gates) -> None:
    """process.md 1.4."""
    found = settings(f"--feature-gates={given}")
    assert found.gates == expected
    assert found.provisioning.cross_namespace is expected.cross_namespace
    assert found.provisioning.volume_attributes_class is expected.volume_attributes_class


@pytest.mark.parametrize(
    ("arguments", "exit_code", "named"),
    [
        (["--feature-gates=NoSuchGate=true"], 255, "unrecognized feature gate: NoSuchGate"),
        (["--feature-gates=topology=true"], 255, "topology (did you mean Topology?)"),
        (["--feature-gates=CSINodeExpandSecret=true"], 255, "CSINodeExpandSecret"),
        (["--version", "--feature-gates=Bogus=true"], 255, "Bogus"),
        (["--node-deployment"], 255, "NODE_NAME"),
        (["--version", "--node-deployment"], 255, "NODE_NAME"),
        (["--http-endpoint=:1", "--metrics-address=:2"], 1, "--http-endpoint=:1 and --metrics-address=:2"),
        (["--metrics-path=m"], 2, "--metrics-path=m"),
        (["--metrics-path="], 2, "--metrics-path="),
        (["--metrics-path=/healthz/leader-election", "--http-endpoint=:1", "--leader-election"], 2,
         "--metrics-path=/healthz/leader-election"),
        (["--metrics-path=/statusz", "--http-endpoint=:1"], 2, "--metrics-path=/statusz"),
        (["--metrics-path=/flagz", "--http-endpoint=:1"], 2, "--metrics-path=/flagz"),
        (["--metrics-path=/debug/pprof/profile", "--metrics-address=:1", "--enable-pprof"], 2,
         "--metrics-path=/debug/pprof/profile"),
        (["--leader-election-namespace=\udcff"], 255, "--leader-election-namespace="),
        (["--volume-name-prefix="], 2, "--volume-name-prefix=: "),
        (["--volume-name-prefix=PVC"], 2, "--volume-name-prefix=PVC: "),
        (["--volume-name-prefix=a_b"], 2, "--volume-name-prefix=a_b: "),
        (["--volume-name-prefix=-a"], 2, "--volume-name-prefix=-a: "),
        (["--volume-name-prefix=a."], 2, "--volume-name-prefix=a.: "),
        (["--volume-name-prefix=a\n"], 2, "--volume-name-prefix=a\n: "),
        ([f"--volume-name-prefix={'a' * 217}"], 2, "at most 253"),
        ([f"--volume-name-prefix={'a' * 221}", "--volume-name-uuid-length=32"], 2, "at most 253"),
        (["--volume-name-uuid-length=0"], 2, "--volume-name-uuid-length=0: "),
        (["--volume-name-uuid-length=-2"], 2, "--volume-name-uuid-length=-2: "),
        (["--volume-name-uuid-length=33"], 2, "--volume-name-uuid-length=33: "),
        (["--claim-annotation-prefix=backup"], 2, "--claim-annotation-prefix=backup: it must begin with a domain"),
        (["--claim-annotation-prefix=/x"], 2, "--claim-annotation-prefix=/x: it must begin with a domain"),
        (["--claim-annotation-prefix=A_b/"], 2, "--claim-annotation-prefix=A_b/: it must begin with a domain"),
        (["--claim-annotation-prefix=acme.test/,kubernetes.io/"], 2, "annotations of Kubernetes"),
        (["--claim-annotation-prefix=acme.test/", "--claim-annotation-prefix=csi.storage.k8s.io/x"], 2, "Kubernetes"),
        (["--timeout=0"], 2, "--timeout=0s"),
        (["--timeout=-5s"], 2, "--timeout=-5s"),
        (["--shutdown-grace-period=-1s"], 2, "--shutdown-grace-period=-1s"),
        (["--kube-api-qps=1", "--kube-api-burst=0"], 255, "--kube-api-burst=0"),
        (["--enable-capacity", "--kube-api-capacity-burst=-1"], 255, "--kube-api-capacity-burst=-1"),
        (["--leader-election", "--leader-election-lease-duration=10s"], 2, "--leader-election-lease-duration=10s"),
        (["--leader-election", "--leader-election-renew-deadline=6s"], 2, "--leader-election-renew-deadline=6s"),
        (["--leader-election", "--leader-election-retry-period=0"], 2, "--leader-election-retry-period=0s"),
        (["--leader-election-type=endpoints"], 2, "--leader-election-type=endpoints"),
        (["--capacity-controller-deployment-mode=local"], 2, "--capacity-controller-deployment-mode=local"),
        (["--logging-format="], 1, "--logging-format="),
        (["--logging-format=JSON"], 1, "--logging-format=JSON"),
        (["--logging-format=json", "--vmodule=a=1"], 1, "--vmodule"),
        (["--log-flush-frequency=0"], 1, "--log-flush-frequency=0s"),
        (["--log-text-split-stream"], 1, "--log-text-split-stream"),
        (["--log-json-split-stream=true"], 1, "--log-json-split-stream"),
        (["--log-text-info-buffer-size=1K"], 1, "--log-text-info-buffer-size=1K"),
        (["--log-json-info-buffer-size=0.5"], 1, "--log-json-info-buffer-size=0.5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_wrong_setting_is_refused_and_named(arguments: list[str], exit_code: int, named: str) -> None:
    """process.md 10.3."""
    with pytest.raises(Fatal) as caught:
        settings(*arguments)
    assert caught.value.code == exit_code
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--volume-name-prefix={'a' * 216}"],
        [f"--volume-name-prefix={'a' * 220}", "--volume-name-uuid-length=32"],
        ["--volume-name-prefix=a.b-1", "--volume-name-uuid-length=1"],
        ["--leader-election-lease-duration=1s", "--leader-election-retry-period=0"],
        ["--kube-api-burst=0"],
        ["--kube-api-capacity-burst=0"],
        ["--kube-api-qps=-1", "--kube-api-burst=0"],
        ["--metrics-path=/healthz/leader-election", "--http-endpoint=:1"],
        ["--metrics-path=/healthz/leader-election", "--metrics-address=:1", "--leader-election"],
        ["--metrics-path=/statusz", "--http-endpoint=:1", "--status-page=false"],
        ["--metrics-path=/flagz", "--metrics-address=:1"],
        ["--metrics-path=/debug/pprof/", "--http-endpoint=:1"],
        ["--metrics-path=/debug/pprof/", "--enable-pprof"],
    ],
    ids=" ".join,
)
def test_values_that_do_not_matter_are_not_refused(arguments: list[str]) -> None:
    """process.md 10.3."""
    settings(*arguments)


def test_version_comes_before_the_other_checks() -> None:
    """process.md 1.5."""
    values = FLAGS.parse(["--version", "--http-endpoint=:1", "--metrics-address=:2", "--timeout=0"])
    assert read(values, {}, LogSettings()) is None


def test_without_workers_nothing_is_worked_on_which_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    settings("--worker-threads=0")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("W")
    assert '"--worker-threads=0: ' in line


@pytest.mark.parametrize("value", ["fast", "=4", "fast=", "fast=-1", "fast=10001", "fast=1.5", "fast=4,slow"])
def test_class_workers_are_names_with_numbers(value: str) -> None:
    with pytest.raises(Fatal, match="--class-workers"):
        settings(f"--class-workers={value}")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Settings().csi.timeout = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--metrics-address=:8080", "--leader-election-labels=a:b,c:d", "--kube-api-qps=2.5", "--vmodule=a=3,b=4"),
        ("--class-workers=fast=4,slow=0", "--class-workers=fast=7", "--claim-annotation-prefix=a.test/,b.test/"),
        (
            "--adaptive-concurrency",
            "--feature-gates=Topology=false,VolumeAttributesClass=true",
            "--timeout=1m30s",
            "--logging-format=json",
        ),
        ("--leader-election", "--leader-election-namespace=ns", "--enable-capacity", "--capacity-ownerref-level=-1"),
    ],
    ids=["defaults", "values", "workers", "gates", "switches"],
)
def test_the_flags_in_force_make_the_same_settings(arguments: tuple[str, ...]) -> None:
    found = settings(*arguments, NAMESPACE="here", POD_NAME="pod")
    again = [f"--{name}={text}" for name, text in in_force(found).items() if text]
    assert settings(*again, NAMESPACE="here", POD_NAME="pod") == found


def test_addresses_in_force_are_told_without_user_and_password() -> None:
    found = in_force(settings("--master=https://user:secret@api.example:6443/x"))
    assert found["master"] == "https://api.example:6443/x"


@pytest.mark.parametrize("name", ["NODE_NAME", "NAMESPACE", "POD_NAME", "POD_NAMESPACE"])
def test_a_name_in_the_environment_that_is_no_text_is_refused(name: str) -> None:
    with pytest.raises(Fatal, match=f"{name}=.*no object can be called so"):
        settings(**{name: "\udcff"})
