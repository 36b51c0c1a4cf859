"""What the channel hands to the metrics, kept for a look."""


class Counted:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bool | None]] = []
        self.seconds: list[float] = []

    def csi_call(self, method: str, code_label: str, seconds: float, migrated: bool | None) -> None:
        self.calls.append((method, code_label, migrated))
        self.seconds.append(seconds)
