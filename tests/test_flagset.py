"""The grammar of the command line and the values each kind of flag takes (process.md 1.1)."""

import pytest

from csi_provisioner.fatal import Fatal
from csi_provisioner.flags import FLAGS

KNOWN = FLAGS.known


@pytest.mark.parametrize(
    ("arguments", "flag", "value"),
    [
        (["--timeout=7s"], "timeout", 7.0),
        (["--timeout", "7s"], "timeout", 7.0),
        (["--timeout=7s", "--timeout=8s"], "timeout", 8.0),
        (["x", "--timeout=7s", "y"], "timeout", 7.0),
        (["-", "--timeout=7s"], "timeout", 7.0),
        (["--timeout=7s", "--", "--timeout=8s", "--unknown"], "timeout", 7.0),
        (["--capacity-ownerref-level", "-1"], "capacity-ownerref-level", -1),
        (["--volume-name-prefix", "--strict-topology"], "volume-name-prefix", "--strict-topology"),
        (["--volume-name-prefix", "--"], "volume-name-prefix", "--"),
        (["--volume-name-prefix="], "volume-name-prefix", ""),
        (["--volume-name-prefix=a=b"], "volume-name-prefix", "a=b"),
        (["--leader-election"], "leader-election", True),
        (["--leader-election", "false"], "leader-election", True),
        (["--leader-election=false"], "leader-election", False),
        (["--immediate-topology=F"], "immediate-topology", False),
        (["--automaxprocs"], "automaxprocs", True),
        (["-v5"], "v", 5),
        (["-v=5"], "v", 5),
        (["-v", "5"], "v", 5),
        (["--v=5"], "v", 5),
        (["-v2147483647"], "v", 2147483647),
        (["--worker-threads=0x1F"], "worker-threads", 31),
        (["--worker-threads=0b101"], "worker-threads", 5),
        (["--worker-threads=0o17"], "worker-threads", 15),
        (["--worker-threads=017"], "worker-threads", 15),
        (["--worker-threads=1_000"], "worker-threads", 1000),
        (["--kube-api-burst=+3"], "kube-api-burst", 3),
        (["--kube-api-qps=1e3"], "kube-api-qps", 1000.0),
        (["--kube-api-qps=.5"], "kube-api-qps", 0.5),
        (["--kube-api-qps=-INF"], "kube-api-qps", None),
        (["--leader-election-labels=a:b,c:", "--leader-election-labels=:d"], "leader-election-labels",
         (("a", "b"), ("c", ""), ("", "d"))),
        (["--feature-gates= A = true ,,B=0", "--feature-gates=A=F"], "feature-gates",
         (("A", True), ("B", False), ("A", False))),
        (["--feature-gates="], "feature-gates", ()),
        (["--vmodule=claims=3,k*=4,"], "vmodule", (("claims", 3), ("k*", 4))),
        (["--log-json-info-buffer-size=2Ki"], "log-json-info-buffer-size", "2Ki"),
        (["-h", "--unknown"], "help", True),
        (["--help", "--timeout=x"], "help", True),
        (["--enable-leader-election"], "leader-election", True),
        (["--enable-leader-election", "--leader-election=false"], "leader-election", False),
    ],
)  # fmt: skip
def test_every_form_of_a_flag_is_read(arguments: list[str], flag: str, value: object) -> None:
    """process.md 1.1."""
    assert FLAGS.parse(arguments)[KNOWN[flag]] == value


@pytest.mark.parametrize("argument", ["--lead", "--capacity", "--log", "--nodes", "-l", "-x", "--no-such-flag=1"])
def test_no_name_is_suggested_that_is_not_near(argument: str) -> None:
    """process.md 1.1."""
    with pytest.raises(Fatal) as caught:
        FLAGS.parse([argument])
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--leader-elect"], ["unknown flag: --leader-elect", "did you mean --leader-election?"]),
        (["-csi-address=/x"], ["'c' in -csi-address=/x", "did you mean --csi-address?"]),
        (["-timeout", "7s"], ["unknown shorthand flag: 't' in -timeout"]),
        (["--csi_address=/x"], ["unknown flag: --csi_address", "--csi-address"]),
        (["--Timeout=1s"], ["unknown flag: --Timeout", "--timeout"]),
        (["--no-such-flag"], ["unknown flag: --no-such-flag"]),
        (["--=x"], ["bad flag syntax: --=x"]),
        (["---timeout=1s"], ["bad flag syntax: ---timeout=1s"]),
        (["--timeout"], ["flag needs an argument: --timeout"]),
        (["-v"], ["flag needs an argument: -v"]),
        (["--timeout=10"], ['"10"', '"--timeout"']),
        (["--timeout="], ['""', '"--timeout"']),
        (["--leader-election=yes"], ['"yes"', '"--leader-election"', "true or false"]),
        (["--leader-election=on"], ['"on"']),
        (["--leader-election=tRUE"], ['"tRUE"']),
        (["--automaxprocs=maybe"], ['"maybe"', '"--automaxprocs"']),
        (["--worker-threads=-1"], ['"-1"', "without a sign"]),
        (["--worker-threads=+1"], ['"+1"']),
        (["--worker-threads=1e3"], ['"1e3"', "integer"]),
        (["--worker-threads= 1"], ['" 1"']),
        (["--worker-threads=089"], ['"089"']),
        (["--worker-threads=\u0661"], ["\u0661"]),
        (["--kube-api-burst=9223372036854775808"], ['"9223372036854775808"']),
        (["--kube-api-qps=1_0"], ['"1_0"']),
        (["--kube-api-qps=fast"], ['"fast"', "number"]),
        (["-v-1"], ['"-1"', '"-v, --v"']),
        (["-v0x5"], ['"0x5"']),
        (["--v=2147483648"], ['"2147483648"']),
        (["--leader-election-labels="], ["key:value"]),
        (["--leader-election-labels=a"], ['"a"']),
        (["--leader-election-labels=a:b:c"], ['"a:b:c"']),
        (["--feature-gates=Topology"], ['"Topology"', "malformed pair"]),
        (["--feature-gates=Topology=yes"], ["Topology", "true or false"]),
        (["--vmodule=claims"], ['"claims"', "pattern=N"]),
        (["--vmodule=claims=-1"], ['"claims=-1"']),
        (["--log-text-info-buffer-size=big"], ['"big"', "quantity"]),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_refused_and_named(arguments: list[str], named: list[str]) -> None:
    """process.md 1.1."""
    with pytest.raises(Fatal) as caught:
        FLAGS.parse(arguments)
    for part in named:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--connection-timeout=10s"],
        ["--connection-timeout", "-1"],
        ["--enable-leader-election"],
        ["--leader-election-type=leases"],
        ["--capacity-controller-deployment-mode=central"],
        ["--logtostderr"],
        ["--alsologtostderr=false"],
        ["--stderrthreshold", "2"],
        ["--log_dir=/tmp"],
        ["--log_file", "--x"],
        ["--log_file_max_size=5"],
        ["--log_backtrace_at=a.go:5"],
        ["--skip_headers"],
        ["--skip_log_headers=true"],
        ["--one_output"],
        ["--add_dir_header"],
    ],
    ids=" ".join,
)
def test_flags_of_older_lines_warn_once(arguments: list[str]) -> None:
    """process.md 13."""
    name = arguments[0].partition("=")[0]
    warnings = FLAGS.parse([*arguments, *arguments]).warnings
    assert len(warnings) == 1
    assert name in warnings[0]


def test_help_shows_every_flag_but_the_old_ones() -> None:
    """process.md 1.1."""
    text = FLAGS.help("Usage: it")
    assert len(KNOWN) > 60
    assert all((f"  {flag.spelled}" in text) is not bool(flag.warning) for flag in KNOWN.values())
    assert "(default 5m0s)" in text
    assert "environment CSI_ENDPOINT" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_what_is_no_flag_is_kept_for_commands() -> None:
    assert FLAGS.parse(["a", "-v", "5", "b", "--", "-c"]).words == ["a", "b", "-c"]
