"""This process among others: its sign of life, and who is dead.

A process holds an operating-system lock on `<home>/workers/<id>.lock` while it lives. Another process on
the same machine knows at once when it is gone (the lock is free); a machine elsewhere must go by the beat.
"""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Final

from downriver.store.mailboxes import WorkerRow

DEAD_AFTER: Final = timedelta(seconds=30)
"""A process elsewhere that has not beaten for so long is dead."""
BEAT_SECONDS: Final = 5.0


class SignOfLife:
    """The lock that says that this process lives. `worker` is its row for the store."""

    def __init__(self, home: Path, now: datetime) -> None:
        self._directory = home / "workers"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.worker = WorkerRow(
            id=f"w-{uuid.uuid4().hex[:12]}", host=socket.gethostname(), pid=os.getpid(), started_at=now, beat_at=now
        )
        self._path = self._directory / f"{self.worker.id}.lock"
        self._file: IO[str] | None = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_dead(self, other: WorkerRow, now: datetime) -> bool:
        """Whether another process is surely gone, or has been silent too long."""
        if other.id == self.worker.id:
            return False
        path = self._directory / f"{other.id}.lock"
        if path.exists():
            return _is_free(path)
        return now - other.beat_at > DEAD_AFTER

    def forget(self, other: WorkerRow) -> None:
        """Remove what a dead process left."""
        (self._directory / f"{other.id}.lock").unlink(missing_ok=True)

    def end(self) -> None:
        """This process works no longer."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def _is_free(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:  # held: its process lives
        return False
    return True
