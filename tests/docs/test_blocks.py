"""What of the pages is run, and that little is not."""

import pytest

from tests.docs import blocks
from tests.docs.blocks import Block

PAGE = """Text.

```sh
echo one
```

- An item

  ```sh unchecked
  docker build .
  ```

```yaml
a: 1
```

<!-- sh
echo hidden
-->

```text seen
hidden
```
"""


def test_the_blocks_of_a_page_are_found() -> None:
    assert blocks.read(PAGE, "page.md") == [
        Block("page.md", 3, "sh", "echo one\n"),
        Block("page.md", 9, "sh unchecked", "docker build .\n"),
        Block("page.md", 13, "yaml", "a: 1\n"),
        Block("page.md", 17, "sh", "echo hidden\n"),
        Block("page.md", 21, "text seen", "hidden\n"),
    ]


@pytest.mark.parametrize(
    ("expected", "output", "seen"),
    [
        ("a\nc\n", "a\nb\nc\n", True),
        ("c\na\n", "a\nb\nc\n", False),
        ("pvc  Bound\n", "pvc      Bound\n", True),
        ("pvc-... Bound\n...\nend\n", "pvc-12 Bound\nx\nend\n", True),
        ("pvc-...\n", "a pvc-12\n", False),
    ],
    ids=["in order", "out of order", "blanks", "anything", "whole lines"],
)
def test_what_a_page_shows_is_what_is_printed(expected: str, output: str, seen: bool) -> None:
    assert blocks.is_seen(expected, output) is seen


def test_few_blocks_are_not_run_and_those_for_a_reason() -> None:
    found = blocks.unchecked()
    assert len(found) <= 15
    assert [str(block) for block in found if not any(word in block.text for word in blocks.NEEDED)] == []


def test_what_a_page_shows_as_seen_follows_a_block_that_is_run() -> None:
    for page in blocks.pages():
        kinds = [block.kind for block in blocks.blocks(page)]
        assert blocks.SEEN not in kinds or "sh" in kinds[: kinds.index(blocks.SEEN)], page
