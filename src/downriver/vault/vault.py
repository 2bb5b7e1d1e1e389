"""Secrets under AES-256-GCM. The name and the key's id are bound to each ciphertext, so rows cannot be swapped."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from downriver.core.errors import SecretMissing, VaultError
from downriver.store import secrets as rows
from downriver.store.db import Store
from downriver.store.secrets import KeyRow, SecretRow
from downriver.vault import keys

MAX_VALUE: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_KNOWN_TEXT: Final = b"downriver vault"
_NONCE: Final = 12


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What may be shown of a secret. `fingerprint` changes with the value and tells nothing about it."""

    name: str
    fingerprint: str
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None


class Vault:
    """The open vault of a store. Make it with `Vault.open`."""

    def __init__(self, store: Store, home: Path, key: KeyRow, raw: bytes, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._home = home
        self._key = key
        self._raw = raw
        self._clock = clock
        self._used: set[str] = set()

    def __repr__(self) -> str:
        return f"Vault(key_id={self._key.key_id!r})"

    @classmethod
    def open(cls, store: Store, home: Path, environ: Mapping[str, str], clock: Callable[[], datetime]) -> Vault:
        """Open the vault, or begin one. Raises VaultError: key lost, key wrong, key file readable by others."""
        known = store.read_now(rows.get_key)
        found = keys.from_environment(environ)
        path, following = home / keys.FILE_NAME, home / keys.NEXT_FILE_NAME
        if known is None:
            key = found or keys.read_file(path) or _begin_file(path)
            fresh, raw = _seal_key(key)
            store.write_now(lambda conn: rows.put_key(conn, fresh))
            return cls(store, home, fresh, raw, clock)
        if found is not None:
            return cls(store, home, known, _fitting([found], known, keys.VARIABLE), clock)
        # Both files lie there when a rotation was interrupted: the one that fits is the key.
        candidates = [key for key in (keys.read_file(path), keys.read_file(following)) if key is not None]
        if not candidates:
            raise VaultError(
                f"The vault's key is gone: {keys.VARIABLE} is not set and the data directory lacks {keys.FILE_NAME}. "
                "Restore it from a backup; without it the secrets can only be set anew, in a new data directory."
            )
        raw = _fitting(candidates, known, keys.FILE_NAME)
        _finish_rotation(path, following, known)
        return cls(store, home, known, raw, clock)

    def set(self, name: str, value: SecretStr) -> None:
        """Store a secret, replacing one of that name. Raises VaultError for a bad name, an empty or huge value."""
        if not _NAME.fullmatch(name):
            raise VaultError(
                f"`{name[:40]}` is no name for a secret: letters, digits and `_`, not beginning with a digit."
            )
        raw = value.get_secret_value().encode()
        if not raw:
            raise VaultError(f"The value for `{name}` is empty: nothing was stored.")
        if len(raw) > MAX_VALUE:
            raise VaultError(f"The value for `{name}` is longer than {MAX_VALUE // 1024} KiB.")
        now = self._clock()
        row = _seal(name, raw, self._key.key_id, self._raw, now)
        self._store.write_now(lambda conn: rows.put_secret(conn, row))

    def get(self, name: str) -> SecretStr:
        """The value of a secret; it counts as used with the next `note_use`. Raises VaultError."""
        row = self._store.read_now(lambda conn: rows.get_secret(conn, name))
        if row is None:
            raise SecretMissing(f"The vault holds no secret `{name}`: set it with `downriver secrets set {name}`.")
        value = _open(row, self._key.key_id, self._raw)
        self._used.add(name)
        return SecretStr(value.decode())

    def note_use(self) -> None:
        """Record the last use of everything read since the last call, in one write."""
        names, now = sorted(self._used), self._clock()
        self._used.clear()
        if names:
            self._store.write_now(lambda conn: rows.touch_secrets(conn, names, now))

    def list(self) -> list[SecretInfo]:
        """What may be shown of every secret, by name."""
        found = self._store.read_now(rows.list_secrets)
        return [
            SecretInfo(row.name, row.fingerprint, row.created_at, row.updated_at, row.last_used_at) for row in found
        ]

    def remove(self, name: str) -> bool:
        """Forget a secret; False when there was none."""
        return self._store.write_now(lambda conn: rows.delete_secret(conn, name))

    def rotate_key(self, new: SecretStr | None = None) -> None:
        """Encrypt everything anew. With `new` None a key is generated and becomes the key file.

        Crash safe: the new file is written beside the old one before the rows change; opening finds the
        one that fits.
        """
        path, following = self._home / keys.FILE_NAME, self._home / keys.NEXT_FILE_NAME
        key = new or keys.new_key()
        if new is None:
            following.unlink(missing_ok=True)
            keys.write_file(following, key)
        sealed, raw = _seal_key(key)
        found = self._store.read_now(rows.list_secrets)
        again = [
            _seal(row.name, _open(row, self._key.key_id, self._raw), sealed.key_id, raw, row.updated_at)
            for row in found
        ]
        self._store.write_now(lambda conn: rows.replace_all(conn, sealed, again))
        self._key, self._raw = sealed, raw
        if new is None:
            following.replace(path)


def _begin_file(path: Path) -> SecretStr:
    key = keys.new_key()
    keys.write_file(path, key)
    return key


def _seal_key(key: SecretStr) -> tuple[KeyRow, bytes]:
    salt = os.urandom(16)
    raw = keys.derive(key, salt)
    key_id = os.urandom(4).hex()
    return KeyRow(key_id, salt, _encrypt(raw, _KNOWN_TEXT, f"check:{key_id}")), raw


def _fitting(candidates: list[SecretStr], known: KeyRow, where: str) -> bytes:
    for key in candidates:
        raw = keys.derive(key, known.salt)
        try:
            if _decrypt(raw, known.check_value, f"check:{known.key_id}") == _KNOWN_TEXT:
                return raw
        except InvalidTag:
            continue
    raise VaultError(f"{where} is not this vault's key: set the right one; nothing was read or changed.")


def _finish_rotation(path: Path, following: Path, known: KeyRow) -> None:
    """After an interrupted rotation keep the file whose key fits."""
    waiting = keys.read_file(following)
    if waiting is None:
        return
    try:
        _fitting([waiting], known, following.name)
    except VaultError:
        following.unlink(missing_ok=True)  # the rows were not changed: the old key is still the one
    else:
        following.replace(path)


def _seal(name: str, value: bytes, key_id: str, raw: bytes, at: datetime) -> SecretRow:
    # Keyed, so that nobody without the vault's key can try values against it.
    fingerprint = hmac.digest(raw, b"fingerprint:" + name.encode() + b":" + value, "sha256").hex()[:8]
    return SecretRow(name, _encrypt(raw, value, f"{name}:{key_id}"), fingerprint, key_id, at, at)


def _open(row: SecretRow, key_id: str, raw: bytes) -> bytes:
    try:
        return _decrypt(raw, row.ciphertext, f"{row.name}:{key_id}")
    except InvalidTag as error:
        raise VaultError(
            f"The secret `{row.name}` was changed outside Downriver, or belongs to another key: "
            f"set it anew with `downriver secrets set {row.name}`."
        ) from error


def _encrypt(raw: bytes, value: bytes, bound: str) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(raw).encrypt(nonce, value, bound.encode())


def _decrypt(raw: bytes, sealed: bytes, bound: str) -> bytes:
    if len(sealed) <= _NONCE:
        raise InvalidTag
    return AESGCM(raw).decrypt(sealed[:_NONCE], sealed[_NONCE:], bound.encode())
