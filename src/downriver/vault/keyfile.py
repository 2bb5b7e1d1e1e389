"""The key on disk: `secret.key` in the data directory, for its owner's eyes only.

A file appears whole or not at all: it is written beside, made durable, then linked or renamed. During a
rotation the new key waits in `secret.key.new` until the database holds what it sealed; whoever opens the
vault after a crash in between takes the one of the two that fits.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from downriver.core.errors import VaultError
from downriver.vault.box import Material, new_key_text, parse_key
from downriver.vault.errors import KeyUnusable

FILE: Final = "secret.key"
NEW_FILE: Final = "secret.key.new"
_MAX_BYTES: Final = 4096


def read_key(path: Path) -> Material | None:
    """The key in `path`, or None when there is no such file.

    Raises KeyUnusable when others than its owner may read it, or it holds no key.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyUnusable(f"The key file {path} cannot be read: {error.strerror}.") from error
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise KeyUnusable(f"The key file {path} is not a file: move away what stands there.")
        if stat.S_IMODE(facts.st_mode) & 0o077:
            raise KeyUnusable(f"The key file {path} can be read by others than its owner: run `chmod 600 {path}`.")
        if facts.st_uid not in {os.geteuid(), 0}:
            raise KeyUnusable(f"The key file {path} belongs to another user: run `chown {os.geteuid()} {path}`.")
        raw = file.read(_MAX_BYTES)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise KeyUnusable(f"The key file {path} holds no key: it is not text. Restore it from a backup.") from None
    return parse_key(text, f"the file {path}")


def create_key(directory: Path) -> Material:
    """The key of `directory`, newly made unless somebody else was quicker.

    The directory is made, 0700, if it is not there; one that is there is left as it is (it may be shared,
    and the file alone is closed to others).
    """
    path = directory / FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = directory / f"{FILE}.{os.getpid()}.{os.urandom(4).hex()}"
        _write(beside, new_key_text(), os.O_EXCL)
        try:
            with suppress(FileExistsError):
                os.link(beside, path)  # unlike a rename, this never takes the place of a key that is there
        finally:
            beside.unlink()
        _sync(directory)
    except OSError as error:
        raise VaultError(
            f"The key file {path} cannot be written: {error.strerror}. Make the directory writable, "
            "or give a key in DOWNRIVER_SECRET_KEY."
        ) from error
    made = read_key(path)
    if made is None:
        raise VaultError(f"The key file {path} vanished as soon as it was written: who removes it?")
    return made


def write_new_key(directory: Path, text: str) -> None:
    """Have the next key wait in `secret.key.new`, durable. Only under `rotation_lock`."""
    try:
        _write(directory / NEW_FILE, text, os.O_TRUNC)
        _sync(directory)
    except OSError as error:
        raise VaultError(
            f"The key file {directory / NEW_FILE} cannot be written: {error.strerror}. Nothing was changed."
        ) from error


def promote_new_key(directory: Path) -> None:
    """Make `secret.key.new` the key. Only under `rotation_lock`."""
    try:
        (directory / NEW_FILE).replace(directory / FILE)
        _sync(directory)
    except OSError as error:
        raise VaultError(
            f"The new key is in use, but {directory / NEW_FILE} could not be renamed to {FILE}: {error.strerror}. "
            "Keep both files; the next start finishes this."
        ) from error


def drop_new_key(directory: Path) -> None:
    """Forget a key that never came into use. Only under `rotation_lock`."""
    with suppress(OSError):
        (directory / NEW_FILE).unlink()


@contextmanager
def rotation_lock(directory: Path) -> Iterator[bool]:
    """Held by whoever changes key files. Yields False, at once, when another process holds it."""
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _write(path: Path, text: str, flag: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flag, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, 0o600)  # a file left over from before may have been opened wider
        file.write(text + "\n")
        file.flush()
        os.fsync(handle)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
