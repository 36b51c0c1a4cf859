"""How the process says that it cannot go on."""


class ExitError(Exception):
    """Ends the process with this code; the text has the reason and what to do."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
