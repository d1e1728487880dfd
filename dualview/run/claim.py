"""Taking a run directory: one process at a time, never over something else, and with a mark where it was stopped."""

import fcntl
import logging
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, TextIO

from dualview.distributed import Job
from dualview.errors import Preempted, UserError
from dualview.files import temporary_of, write_whole
from dualview.run.directory import RunDir

logger = logging.getLogger(__name__)


@contextmanager
def claim(run: RunDir, *, resume: Literal["auto", "never"], job: Job) -> Iterator[str]:
    """Take a new or empty run directory, or one of an earlier run to go on with, and hold it for the block.

    All ranks call; the main process acts. Gives the run's id, which stays the same through interruptions.

    Raises:
        UserError: the directory is in use by another process, holds a run that `resume` says not to
            touch, holds something else, is no directory, or cannot be written.
    """
    with ExitStack() as stack:
        run_id = stack.enter_context(_claimed(run, resume=resume)) if job.is_main else ""
        yield job.share(run_id)


@contextmanager
def _claimed(run: RunDir, *, resume: Literal["auto", "never"]) -> Iterator[str]:
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        # A kill can leave these two in a directory that is otherwise empty.
        ours = {run.lock, temporary_of(run.id_file)}
        found = sorted(path.name for path in run.path.iterdir() if path not in ours)
        lock = run.lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"run.dir {run} cannot be written: {error.strerror}. Choose another run.dir") from None
    with lock:
        _lock(lock, run=run)
        if found and not run.id_file.exists():
            raise UserError(
                f"run.dir {run} is not empty and not a run of dualview, it holds {_some(found)}. "
                "Nothing was changed. Choose a new run.dir"
            )
        if found and resume == "never":
            raise UserError(
                f"run.dir {run} is not empty, it holds {_some(found)}. Nothing was changed. "
                "Choose a new run.dir, or continue that run with train.resume=auto"
            )
        if not found:
            write_whole(run.id_file, secrets.token_hex(4) + "\n")
        run.preempted.unlink(missing_ok=True)
        try:
            yield run.read_id()
        except Preempted as stopped:
            # A job script knows by this file that the run wants to be started again.
            write_whole(run.preempted, f"{stopped}\n")
            raise


def _lock(file: TextIO, *, run: RunDir) -> None:
    """Lock for as long as the file is open; the system takes it back from a process that dies."""
    try:
        # POSIX locks are not inherited by the data loader's forked processes, which may outlive the run.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise UserError(
            f"run.dir {run} is in use by {file.read().strip() or 'another process'}. Nothing was changed. "
            "Wait for that run, stop it, or choose another run.dir"
        ) from None
    except OSError as error:  # Some file systems have no locks.
        logger.warning("%s cannot be locked (%s): take care that no second run uses it", run, error.strerror)
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
