"""Where the vault's key comes from: `DOWNRIVER_SECRET_KEY`, or a generated 0600 file in the home."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import SecretStr

from downriver.core.errors import VaultError

VARIABLE: Final = "DOWNRIVER_SECRET_KEY"
FILE_NAME: Final = "secret.key"
NEXT_FILE_NAME: Final = "secret.key.next"
_MIN_LENGTH: Final = 16


def new_key() -> SecretStr:
    """A fresh key: 32 random bytes in URL-safe base64."""
    return SecretStr(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())


def derive(key: SecretStr, salt: bytes) -> bytes:
    """The 32 bytes that encrypt. scrypt, so that a passphrase is as hard to guess as can be (some 50 ms)."""
    return Scrypt(salt=salt, length=32, n=2**14, r=8, p=1).derive(key.get_secret_value().encode())


def from_environment(environ: Mapping[str, str]) -> SecretStr | None:
    """The key of `DOWNRIVER_SECRET_KEY`, or None when it is not set. Raises VaultError when it is too short."""
    value = environ.get(VARIABLE)
    if value is None:
        return None
    if len(value) < _MIN_LENGTH:
        raise VaultError(
            f"{VARIABLE} is shorter than {_MIN_LENGTH} characters: make one with `openssl rand -base64 32`."
        )
    return SecretStr(value)


def read_file(path: Path) -> SecretStr | None:
    """The key of a file; None when there is none. Raises VaultError when others may read it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise VaultError(f"The vault's key file {path.name} cannot be read: {type(error).__name__}.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise VaultError(
            f"The vault's key file {path.name} can be read by others: `chmod 600 {path}`, then rotate it."
        )
    if len(text) < _MIN_LENGTH:
        raise VaultError(f"The vault's key file {path.name} is empty or cut short: restore it from a backup.")
    return SecretStr(text)


def write_file(path: Path, key: SecretStr) -> None:
    """Make a key file, 0600, durable. Raises FileExistsError rather than overwrite one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.get_secret_value() + "\n")
        file.flush()
        os.fsync(file.fileno())
