"""What every reader of images raises."""


class BadImage(Exception):
    """An image that cannot be used; `path` is as in the study table, `reason` fits into a sentence."""

    def __init__(self, path: str, *, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
