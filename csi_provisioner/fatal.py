"""What ends the process for good, whichever part finds it out."""


class Fatal(Exception):  # noqa: N818 - what it does to the process is its name
    """Ends the process with exit code `code` (process.md 10.3). The text says what is wrong and what to do about it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code
