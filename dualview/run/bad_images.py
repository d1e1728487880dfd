"""Images that cannot be read: the run ends, or they are listed and it goes on."""

import logging
from typing import Literal, TypeVar

from dualview.data.dataset import Loaded
from dualview.data.several_images import AllImages
from dualview.distributed import Job
from dualview.errors import UserError, told_by_reason
from dualview.run.directory import RunDir

logger = logging.getLogger(__name__)

Taken = TypeVar("Taken", bound=Loaded | AllImages)


class BadImages:
    """What happens to images that cannot be read.

    The list is `bad_images.txt` in the run directory, each image once for each rank that met it. Names of
    files can identify patients, so neither the log nor wandb gets more than their number.
    """

    def __init__(self, run: RunDir, *, policy: Literal["error", "treat_view_as_missing"], job: Job) -> None:
        self.file = run.bad_images
        self.policy = policy
        self._job = job
        self._reasons: dict[str, str] = {}  # path -> reason, as this rank has met them since its start
        self._lost: set[str] = set()  # paths of those in whose place there is no other image of the view

    def take(self, loaded: Taken) -> Taken:
        """Remember the bad images of a micro-batch fresh from the loader, and hand it on."""
        new = {path: reason for path, reason in loaded.bad_images if path not in self._reasons}
        self._reasons |= new
        self._lost |= {path for path, _ in loaded.bad_images} - set(loaded.replaced)
        if new and (self.policy == "treat_view_as_missing" or new.keys() <= set(loaded.replaced)):
            listed_before = set(self.file.read_text("utf-8").splitlines()) if self.file.exists() else set()
            lines = [f"{path}: {reason}" for path, reason in new.items()]
            # A node without the main node's disk has had no run directory until now.
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines if line not in listed_before)
            logger.warning(
                "%d image(s) so far cannot be used, see %s: %d count as missing, others of their view replace %d",
                len(self._reasons), self.file, len(self._lost), len(self._reasons) - len(self._lost),
            )  # fmt: skip
        return loaded

    def settle(self, num_bad_images: int) -> None:
        """End the run where the policy says so. All ranks call with the same count over all ranks.

        Raises:
            UserError: a study has lost a view to a bad image and the policy is `error`; it names those of all ranks.
        """
        if num_bad_images and self.policy == "error":
            lost = [f"{path}\0{reason}" for path, reason in self._reasons.items() if path in self._lost]
            if not (found := self._job.gather_texts(lost)):
                return
            told = told_by_reason(tuple(text.split("\0")) for text in found)
            error = UserError(
                f"{len(found)} image(s) cannot be used\n{told}\nMend or remove them, or set "
                "data.on_bad_image=treat_view_as_missing to go on with the views that can be read"
            )
            error.details = [text.replace("\0", ": ") for text in found]
            raise error
