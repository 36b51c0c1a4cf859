"""The first moments of the program, in odd surroundings (process.md 3, 10.3)."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "from csi_provisioner.__main__ import main; sys.exit(main())"


def started(
    code: str, *arguments: str, shell: str = "", run: str = "exec", **environ: str
) -> "subprocess.CompletedProcess[str]":
    command = f'{shell} {run} "$0" -c "$@"'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, f"import sys; {code}", *arguments],
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
        env=environ,
    )


SIGNAL_AT_THE_FIRST_IMPORT = """
import os
class Finder:
    def find_spec(self, name, *rest):
        if name == "csi_provisioner.cli":
            os.kill(os.getpid(), int(sys.argv.pop()))
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_there_is_a_handler_before_anything_is_loaded(number: signal.Signals) -> None:
    """A container's first process never gets a signal without one."""
    done = started(SIGNAL_AT_THE_FIRST_IMPORT + MAIN, str(int(number)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("limit", ["-n 8", "-n 9", "-v 33000"])
def test_what_the_machine_does_not_give_is_one_line_with_advice(limit: str) -> None:
    done = started(MAIN, "--csi-address=/nowhere", "--http-endpoint=127.0.0.1:0", shell=f"ulimit {limit};")
    assert done.returncode == 255
    (line,) = (line for line in done.stderr.splitlines() if line[0] != "I")
    assert line.startswith("F")
    assert 'advice="raise the limit of ' in line


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become a user without any")
@pytest.mark.parametrize("limit", [1, 2])
def test_a_user_who_may_have_no_more_threads_is_told_so(limit: int) -> None:
    """The limit counts what all processes of the user have; root has none."""
    user = 100_000 + os.getpid()
    rights = "--clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override"  # to load this program
    run = f"exec prlimit --nproc={limit} setpriv --reuid={user} --regid={user} {rights}"
    done = started(MAIN, "--csi-address=/nowhere", "--http-endpoint=127.0.0.1:0", run=run, PATH=os.environ["PATH"])
    assert done.returncode == 255
    (line,) = (line for line in done.stderr.splitlines() if line[0] != "I")
    assert line.startswith("F")
    assert 'advice="raise the limit of threads' in line


WITHOUT_THREADS = """
import threading
import trio
from csi_provisioner.kube.connection import open_socket
from csi_provisioner.kube.credentials import Plugin
from csi_provisioner.supervisor.connection import _write_termination_message
from csi_provisioner.traces import traces

threading.stack_size(1 << 46)  # more than there is room for

async def run():
    try:
        await open_socket("localhost", 1)
    except OSError as error:
        print(error)
    try:
        await Plugin(["true"], version="", environment={}, now=trio.current_time)._printed()
    except ValueError as error:
        print(error)
    await _write_termination_message("the end")
    traces._spans = open("/dev/null")
    await traces.end(1.0)

trio.run(run)
"""


def test_what_wants_a_thread_that_cannot_be_started_fails_like_any_other_request() -> None:
    done = started(WITHOUT_THREADS)
    assert (done.returncode, done.stdout) == (0, "[Errno 11] can't start new thread\ncan't start new thread\n")
    assert "The termination message cannot be written" in done.stderr


PLUGIN_AS_FIRST = """
import os
import trio
from csi_provisioner.kube.credentials import Plugin

async def run():
    for script in ("true & true &", "true & true &", "true"):
        await Plugin(["sh", "-c", script], version="", environment={}, now=trio.current_time)._printed()
    try:
        while True:
            os.waitid(os.P_ALL, 0, os.WEXITED)
            print("a child is left")
    except ChildProcessError:
        print("first", os.getpid())

trio.run(run)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root can be a first process")
def test_a_first_process_buries_what_plugins_leave_behind() -> None:
    done = started(PLUGIN_AS_FIRST, run="exec unshare --pid --fork", PATH=os.environ["PATH"])
    assert done.stdout == "first 1\n"


def test_a_limit_of_open_files_that_may_be_raised_is_raised() -> None:
    done = started(MAIN, "--kubeconfig=/nowhere", shell="ulimit -Sn 8;")
    assert "/nowhere" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["LOGURU_DIAGNOSE", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_what_libraries_read_in_the_environment_changes_nothing(name: str) -> None:
    done = started(MAIN, "--kubeconfig=/nowhere", **{name: "/nope"})
    assert done.returncode == 255
    assert "/nowhere" in done.stderr.splitlines()[-1]


SAYS_ITS_STREAMS = """
import os
from csi_provisioner.__main__ import main
main()
print(*(os.readlink(f"/proc/self/fd/{stream}") for stream in (0, 2)))
"""


def test_a_stream_that_is_closed_gives_its_number_to_no_connection() -> None:
    done = started(SAYS_ITS_STREAMS, "--version", shell="exec 0<&- 2>&-;")
    assert done.stdout.splitlines()[-1] == "/dev/null /dev/null"


@pytest.mark.parametrize(
    "environ",
    [
        {"PYTHONINSPECT": "1"},
        {"PYTHONWARNINGS": "error", "PYTHONWARNDEFAULTENCODING": "1"},
        {"PYTHONOPTIMIZE": "2", "PYTHONDEVMODE": "1", "PYTHONMALLOC": "debug"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONSTARTUP": "/nope"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_what_the_interpreter_reads_in_the_environment_changes_no_end(environ: dict[str, str]) -> None:
    done = started(MAIN, "--kubeconfig=/nowhere", **environ)
    assert done.returncode == 255
    assert "Traceback" not in done.stderr
    assert '"The process ends" err="cannot read the kubeconfig /nowhere' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        ("> >(true)", 0, ""),
        ("2>/dev/full", 0, ""),
        (">/dev/full", 1, "the answer cannot be written: No space left on device\n"),
    ],
)
def test_streams_that_take_nothing_break_no_command(streams: str, code: int, said: str) -> None:
    done = started(MAIN, "explain", "--help", shell=f"exec {streams};")
    assert (done.returncode, done.stderr) == (code, said)


def test_letters_that_a_terminal_does_not_have_are_written_another_way() -> None:
    done = started(
        "from csi_provisioner.__main__ import main; main(); print('\\u2192')", "--version", PYTHONIOENCODING="ascii"
    )
    assert done.stdout.splitlines()[-1] == "\\u2192"


@pytest.mark.parametrize("zone", ["<+99>-99", "../../etc/passwd", "a" * 100_000])
def test_no_time_zone_keeps_the_program_from_starting(zone: str) -> None:
    done = started(MAIN, "--version", TZ=zone)
    assert (done.returncode, done.stderr) == (0, "")


DEFER = "from csi_provisioner import deferred; deferred.defer(); "


def test_what_a_start_leaves_out_is_not_loaded() -> None:
    there = "(name for name, module in sys.modules.items() if not isinstance(module, deferred._Deferred))"
    code = (
        f"import sys, csi_provisioner.diagnostics.server; from csi_provisioner.supervisor import term; print(*{there})"
    )
    loaded = set(started(DEFER + code).stdout.split())
    assert "trio" in loaded
    assert not loaded & {
        "attr.validators",
        "ctypes.util",
        "idna",
        "lightkube",
        "prometheus_client",
        "typing_extensions",
    }
    assert not loaded & {"email", "fractions", "greenlet", "multidict", "secrets", "shutil", "tempfile"}


def test_the_program_asks_for_nothing_that_is_left_out() -> None:
    """Tests run with all of Trio, so that no other one would notice."""
    code = "import trio; print(*(name for name, value in vars(trio).items() if value is deferred.left_out))"
    left_out = started(DEFER + code).stdout.split()
    assert {"Path", "open_file", "serve_listeners"} <= {*left_out}
    asked = re.compile(rf"\btrio\.({'|'.join(left_out)})\b(?!`)")
    product = Path(__file__).parents[1] / "csi_provisioner"
    assert [path for path in product.rglob("*.py") if asked.search(path.read_text())] == []
    done = started(DEFER + "import trio; trio.Path('/')")
    assert done.stderr.splitlines()[-1].startswith("NotImplementedError: this is left out of the program")


def test_each_name_that_is_left_out_is_one_that_libraries_load() -> None:
    """A newer one may have moved it: then nothing is left out any more, and nobody would notice."""
    code = (
        "import sys, attr, loguru, msgspec, prometheus_client.metrics, trio_asyncio; "
        "from csi_provisioner import deferred; print({*deferred.UNUSED} - {*sys.modules})"
    )
    assert started(code).stdout == "set()\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param("import idna; print(idna.encode('b\u00fccher.example'))", "b'xn--bcher-kva.example'", id="idna"),
        pytest.param("import attrs; print(attrs.validators.ge(3))", "<Validator for x >= 3>", id="validators"),
        pytest.param(
            "import typing_extensions as t; print(t.Self, t.evaluate_forward_ref)", "typing.Self <function", id="typing"
        ),
        pytest.param("import anyio.abc, anyio.from_thread; print(anyio.run)", "<function", id="all of anyio"),
        pytest.param(
            "import threading, sys, idna; sys.setswitchinterval(1e-6); said = []; start = threading.Barrier(4); "
            "ask = lambda: (start.wait(), said.append(idna.encode('b\u00fccher.example'))); "
            "threads = [threading.Thread(target=ask) for _ in range(4)]; [each.start() for each in threads]; "
            "[each.join() for each in threads]; print(len(said))",
            "4",
            id="four threads at once",
        ),
        pytest.param(
            "import ctypes.util; find = ctypes.util.find_library; print(find('pthread'), find('c'), find('c'))",
            "libpthread.so.0 libc.so.6 libc.so.6",
            id="libraries' names",
        ),
        pytest.param(
            "import prometheus_client as p; print(hasattr(p, 'decorator'))", "True", id="a module of a package"
        ),
        pytest.param(
            "import attr; print(attr.validators.instance_of(int), attr.validators.instance_of(BaseException))",
            "<instance_of validator for type <class 'int'>> <instance_of",
            id="a check of others",
        ),
        pytest.param("import trio; print(trio.run(trio.run_process, ['true']).returncode)", "0", id="a process"),
    ],
)
def test_what_is_deferred_is_there_for_who_asks(code: str, said: str) -> None:
    done = started(DEFER + code)
    assert done.stdout.startswith(said), done.stderr


def test_threads_have_their_names_and_no_process_is_started_to_find_out_how() -> None:
    code = (
        "import sys, threading; started = []; sys.addaudithook(lambda event, _: started.append(event)); import trio; "
        "name = lambda: open(f'/proc/self/task/{threading.get_native_id()}/comm').read(); name.__name__ = 'asked'; "
        "print(trio.run(trio.to_thread.run_sync, name), 'subprocess.Popen' in started)"
    )
    assert started(DEFER + code).stdout.split() == ["asked", "from", "trio", "False"]
