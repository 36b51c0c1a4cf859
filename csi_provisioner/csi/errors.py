"""What can go wrong with the driver, in two kinds: a call that failed, and a driver the process cannot start with.

Nothing is decided here. What a code means for a volume is `planning/verdict`; what a failed start means for the process
is the supervisor's.
"""

from csi_provisioner.model.codes import label


class CallError(Exception):
    """One call did not succeed. The only exception a call raises besides Trio's own.

    `code` is the number of the wire, also one that gRPC has no name for; `not_grpc` says that the driver's answer
    carried no status at all, and `code` is then only the nearest one.
    """

    def __init__(self, code: int, message: str, method: str, *, not_grpc: bool = False) -> None:
        super().__init__(code, message, method)
        self.code = code
        self.message = message
        self.method = method
        self.not_grpc = not_grpc

    @property
    def label(self) -> str:
        """The code as metrics name it (process.md 8.1)."""
        return "unknown-non-grpc" if self.not_grpc else label(self.code)

    def __str__(self) -> str:
        reason = self.message or "(the driver gave no reason)"
        return f"{self.method.rpartition('/')[2]}: rpc error: code = {label(self.code)} desc = {reason}"


class StartError(Exception):
    """The driver cannot be worked with. The text tells the operator what to do; exit codes: process.md 10.3."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class WrongDriverError(StartError):
    """Another driver than `--provisioner` says answers on the socket; `name` is who it is."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message, exit_code=255)
        self.name = name
