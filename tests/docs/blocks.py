"""The commands of the pages. `python -m tests.docs.blocks` lists those that no test runs.

```sh             run, in its page's order; the page's bash ends where a command fails
```bash           not run here: the tests themselves, which CI begins with
```sh unchecked   not run: it needs a kubelet or an engine for containers
```text seen      lines that the block before it has printed, in this order; `...` stands for anything
<!-- sh           run and not shown: what the reader has already
-->
<!-- driver: NAME -->    beside each csi-provisioner container that the page applies a driver of this name runs
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("tutorial", "how-to", "reference", "explanation")
# What no test has: a kubelet, an engine for containers, somebody's registry of images.
NEEDED = ("exec", "port-forward", "docker", "kind ", "cosign", "helm")
UNCHECKED, SEEN = "sh unchecked", "text seen"
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<kind>\S.*?)\n(?P<text>.*?)^(?P=indent)```$|^<!-- sh\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
DRIVER = re.compile(r"^<!-- driver: (\S+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    return [
        ROOT / "README.md",
        *(page for folder in FOLDERS for page in sorted((ROOT / "docs" / folder).rglob("*.md"))),
    ]


def blocks(page: Path) -> list[Block]:
    return read(page.read_text(), str(page.relative_to(ROOT)))


def read(text: str, page: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        kind = match["kind"] or "sh"
        commands = textwrap.dedent(match["text"] if match["kind"] else match["hidden"])
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, kind, commands))
    return found


def driver(page: Path) -> str | None:
    found = DRIVER.search(page.read_text())
    return found and found[1]


def is_seen(expected: str, output: str) -> bool:
    """Whether the output has these lines in this order, whatever the blanks in them."""
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    wanted = [
        re.compile(re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*"))
        for line in expected.splitlines()
        if line.strip() not in ("", "...")
    ]
    return all(any(line.fullmatch(there) for there in lines) for line in wanted)


def unchecked() -> list[Block]:
    return [block for page in pages() for block in blocks(page) if block.kind == UNCHECKED]


if __name__ == "__main__":
    run = [block for page in pages() for block in blocks(page) if block.kind == "sh"]
    print(f"{len(run)} blocks are run by nox -s cluster; {len(unchecked())} are not, they need a kubelet or an engine:")
    for block in unchecked():
        print(f"  {block}: {block.text.splitlines()[0]}")
