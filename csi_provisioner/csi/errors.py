"""How a call to the driver fails. What its code means for a volume is decided in `planning/verdict`."""

from csi_provisioner.model.codes import Code, label
from csi_provisioner.model.outcome import TryError

# Each label is a series for ever, and a driver may send any number: far more have one than gRPC will ever name
LABELLED = range(100)


class CallError(TryError):
    """One call did not succeed. The only exception a call raises besides Trio's own; it names the method then.

    `code` is the number of the wire, also one that gRPC has no name for; `not_grpc` says that the driver's answer
    carried no status at all, and `code` is then only the nearest one. `lost`: no status came because the connection
    ended or there was none, which says nothing of the call itself.
    """

    def __init__(
        self, code: int, message: str, method: str = "", *, not_grpc: bool = False, lost: bool = False
    ) -> None:
        super().__init__(code, message, method)
        self.code = code
        self.message = message
        self.method = method
        self.not_grpc = not_grpc
        self.lost = lost
        self.kind = self.label
        self.timed_out = code == Code.DEADLINE_EXCEEDED

    @property
    def label(self) -> str:
        """The code as metrics name it (process.md 8.1)."""
        if self.code not in LABELLED:
            return "Code(other)"
        return "unknown-non-grpc" if self.not_grpc else label(self.code)

    def __str__(self) -> str:
        reason = self.message or "(the driver gave no reason)"
        return f"{self.method.rpartition('/')[2]}: rpc error: code = {label(self.code)} desc = {reason}"


class NotTakenError(CallError):
    """The driver has never begun with the call, so that it may be sent again."""
