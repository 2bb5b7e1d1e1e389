"""The vault as others use it: set, get, list, remove, rotate.

The key comes from `DOWNRIVER_SECRET_KEY`, or else from `secret.key` in the data directory, which is made
with the first secret. A check value in the database tells a wrong key as soon as the vault is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Final, Never, TypeVar

from pydantic import SecretStr
from sqlalchemy.engine import Connection

from downriver.core.errors import SecretMissing, VaultError
from downriver.store import secrets as rows
from downriver.store.db import Store
from downriver.vault import keyfile
from downriver.vault.box import Box, Material, new_key_id, new_key_text, new_salt, parse_key
from downriver.vault.errors import KeyLost, Tampered, WrongKey

T = TypeVar("T")

KEY_VARIABLE: Final = "DOWNRIVER_SECRET_KEY"
MAX_VALUE: Final = 64 * 1024
"""Bytes of UTF-8 in a value."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What may be shown of a secret. `fingerprint` changes when the value or the vault's key does."""

    name: str
    fingerprint: str
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None


class _KeyChanged(VaultError):
    """Another process rotated the key, or made the first one, since this vault was opened."""

    def __init__(self) -> None:
        super().__init__("The vault's key was changed by another process just now: try again.")


def _now() -> datetime:
    return datetime.now(UTC)


class Vault:
    """An open vault. Make it with `Vault.open`. Values leave it only through `get` and `reveal`."""

    def __init__(self, store: Store, home: Path, environ: Mapping[str, str], clock: Callable[[], datetime]) -> None:
        """For `open` and `open_locked`."""
        self._store = store
        self._home = home
        self._clock = clock
        text = environ.get(KEY_VARIABLE, "").strip()
        self._given = parse_key(text, KEY_VARIABLE) if text else None
        self._box: Box | None = None
        self._used: set[str] = set()
        self._abandoned: rows.KeyRow | None = None
        """The key row that may be replaced: nothing is sealed with it, and no key fits it."""

    def __repr__(self) -> str:
        """Where its key is, nothing else."""
        return f"Vault(key in {KEY_VARIABLE if self._given else self._home / keyfile.FILE})"

    @classmethod
    def open(
        cls, store: Store, home: Path, environ: Mapping[str, str], clock: Callable[[], datetime] = _now
    ) -> Vault:
        """Open the vault of a database and data directory, and prove the key.

        Raises KeyUnusable, KeyLost, WrongKey or Tampered; StoreError when the database cannot be read.
        Nothing is written: a key is made with the first secret.
        """
        vault = cls(store, home, environ, clock)
        vault._unlock()
        return vault

    @classmethod
    def open_locked(cls, store: Store, home: Path, clock: Callable[[], datetime] = _now) -> Vault:
        """The vault without its key: `list` and `remove` work, nothing can be read or set.

        For a key that is lost for good: when the last secret is removed, the next `open` begins anew.
        """
        return cls(store, home, {}, clock)

    # -- verbs --------------------------------------------------------------------------------------

    def set(self, name: str, value: SecretStr | str) -> SecretInfo:
        """Store a secret, in the place of one of the same name. The value is kept as it is, to the last line end.

        Raises VaultError for a name or value that cannot be.
        """
        _check_name(name)
        raw = _bytes_of(name, value.get_secret_value() if isinstance(value, SecretStr) else value)
        now = self._clock()

        def put(box: Box) -> SecretInfo:
            row = rows.SecretRow(name, box.seal(name, raw), box.fingerprint(name, raw), box.key_id, now, now)

            def write(conn: Connection) -> rows.SecretRow:
                _same_key(rows.get_key_row(conn), box)
                return rows.put_secret(conn, row)

            return _info(self._store.write_now(write))

        return self._with_key(put, make=True)

    def get(self, name: str) -> SecretStr:
        """The secret of that name. Its use is remembered until `note_use`.

        Raises SecretMissing, or Tampered when its row is not what the vault wrote.
        """

        def read(box: Box) -> SecretStr:
            key, row = self._store.read_now(lambda conn: (rows.get_key_row(conn), rows.get_secret(conn, name)))
            if row is None:
                raise SecretMissing(name)
            _same_key(key, box)
            return SecretStr(_opened(box, row).decode())

        if self._box is None and self._store.read_now(lambda conn: rows.get_secret(conn, name)) is None:
            raise SecretMissing(name)
        value = self._with_key(read)
        self._used.add(name)
        return value

    def reveal(self, name: str) -> str:
        """`get` as plain text: the `secrets` that `config.load` asks for."""
        return self.get(name).get_secret_value()

    def note_use(self) -> None:
        """Write down, in one go, that the secrets read so far were used now."""
        if self._used:
            names, at = frozenset(self._used), self._clock()
            self._store.write_now(lambda conn: rows.touch_secrets(conn, names, at))
            self._used -= names

    def list(self) -> tuple[SecretInfo, ...]:
        """Every secret, in the order of their names."""
        return tuple(_info(row) for row in self._store.read_now(rows.all_secrets))

    def remove(self, name: str) -> bool:
        """Remove a secret for good. False: there was none of that name."""
        locked = self._box is None

        def write(conn: Connection) -> bool:
            removed = rows.delete_secret(conn, name)
            if locked and not rows.count_secrets(conn):
                rows.delete_key_row(conn)  # nothing is left that a key could open: the next secret makes a new one
            return removed

        self._used.discard(name)
        return self._store.write_now(write)

    def rotate_key(self, new: SecretStr | None = None) -> int:
        """Seal every secret anew with another key, all or none; returns how many.

        `new` is read as `DOWNRIVER_SECRET_KEY` is; without it a random key is made. A key in a file is
        replaced there. A key from the environment cannot be: then `new` must be given, and the variable
        changed to it afterwards.
        """
        if self._given is not None and new is None:
            raise VaultError(
                f"The key comes from {KEY_VARIABLE}, which Downriver cannot change: hand the new key over, "
                "and afterwards set the variable to it everywhere."
            )
        text = new.get_secret_value().strip() if new is not None else new_key_text()
        material = parse_key(text, "the new key")
        if not self._home.is_dir():
            self._home.mkdir(mode=0o700, parents=True)
        with keyfile.rotation_lock(self._home) as free:
            if not free:
                raise VaultError("Another process is rotating the key just now: let it finish.")
            self._unlock(rotating=True)
            if self._given is None and self._box is not None:
                keyfile.write_new_key(self._home, text)
            count = self._reseal(material)
            if self._given is None and self._box is not None:
                keyfile.promote_new_key(self._home)
        if self._given is not None:
            self._given = replace(material, origin=KEY_VARIABLE)
        return count

    # -- the key ------------------------------------------------------------------------------------

    def _reseal(self, material: Material) -> int:
        """Every row opened with the key at hand and sealed with `material`, in one transaction."""
        old = self._box
        if old is None:
            raise VaultError("There is no key to rotate yet: it is made with the first secret.")
        box = Box(material, new_key_id(), new_salt())

        def write(conn: Connection) -> int:
            _same_key(rows.get_key_row(conn), old)
            sealed = []
            for row in rows.all_secrets(conn):
                raw = _opened(old, row)
                sealed.append(
                    replace(
                        row,
                        ciphertext=box.seal(row.name, raw),
                        fingerprint=box.fingerprint(row.name, raw),
                        key_id=box.key_id,
                    )
                )
            rows.replace_all_secrets(conn, sealed)
            rows.set_key_row(conn, rows.KeyRow(box.key_id, box.salt, box.check_value()))
            return len(sealed)

        try:
            count = self._store.write_now(write)
        except VaultError:
            if self._given is None:
                keyfile.drop_new_key(self._home)  # surely not in use: the transaction was given up by us
            raise
        self._box = box
        return count

    def _with_key(self, work: Callable[[Box], T], *, make: bool = False) -> T:
        """`work` with the key; again if another process changed it meanwhile."""
        for _ in range(3):
            if self._box is None:
                self._unlock()
            try:
                box = self._box or (self._make_key() if make else None)
                if box is not None:
                    return work(box)
            except _KeyChanged:
                self._box = None
        raise _KeyChanged

    def _make_key(self) -> Box:
        """The first key of this database: given, in a file already, or new in a file."""
        material = self._given or keyfile.read_key(self._home / keyfile.FILE) or keyfile.create_key(self._home)
        box = Box(material, new_key_id(), new_salt())
        row = rows.KeyRow(box.key_id, box.salt, box.check_value())

        def write(conn: Connection) -> bool:
            if rows.get_key_row(conn) != self._abandoned:
                return False  # somebody else was quicker
            rows.set_key_row(conn, row)
            return True

        if not self._store.write_now(write):
            raise _KeyChanged
        self._box = box
        return box

    def _unlock(self, *, rotating: bool = False) -> None:
        """Find the key that fits. Leaves none when nothing is sealed: then any key will do to begin anew."""
        row, count = self._store.read_now(lambda conn: (rows.get_key_row(conn), rows.count_secrets(conn)))
        self._box = self._abandoned = None
        if row is None:
            if count:
                raise Tampered(
                    f"The database holds {count} secrets but no longer says which key sealed them: "
                    "somebody removed that row. Restore the database from a backup."
                )
            return
        if self._given is not None:
            self._box = _fitting(self._given, row)
            if self._box is None:
                self._abandoned = row if not count else self._refuse_given(row)
            return
        self._box = self._from_files(row, rotating=rotating)
        if self._box is not None:
            return
        if not count:
            self._abandoned = row
            return
        if self._store.read_now(rows.get_key_row) != row:
            # Another process finished a rotation between our look at the row and our look at the file.
            self._unlock(rotating=rotating)
            return
        path = self._home / keyfile.FILE
        if path.exists():
            raise WrongKey(
                f"The key in {path} is not the one that sealed the vault's {count} secrets: "
                f"put the right file back, or give the right key in {KEY_VARIABLE}."
            )
        raise KeyLost(
            f"The vault holds {count} secrets, but its key is gone: there is no {path}, and "
            f"{KEY_VARIABLE} is not set. Put the key back. If it is lost for good, so are the values: remove "
            "each secret with `downriver secrets rm NAME` and set it again."
        )

    def _from_files(self, row: rows.KeyRow, *, rotating: bool) -> Box | None:
        """The key of the two files that fits, finishing a rotation that was cut off."""
        for name in (keyfile.FILE, keyfile.NEW_FILE):
            material = keyfile.read_key(self._home / name)
            box = _fitting(material, row) if material is not None else None
            if box is not None:
                if name == keyfile.NEW_FILE:
                    self._finish_rotation(row, held=rotating)
                return box
        return None

    def _refuse_given(self, row: rows.KeyRow) -> Never:
        """Raise WrongKey for the key in the environment, saying whether the file's would fit."""
        material = keyfile.read_key(self._home / keyfile.FILE)
        hint = "Set it to the key that was used when the secrets were set"
        if material is not None and _fitting(material, row) is not None:
            hint = f"The key in {self._home / keyfile.FILE} is: unset the variable, or set it to what stands there"
        raise WrongKey(f"The key in {KEY_VARIABLE} is not the one that sealed the vault. {hint}.")

    def _finish_rotation(self, row: rows.KeyRow, *, held: bool) -> None:
        """A rotation was cut off after its commit: do what is left, unless its process is still at it."""
        if held:
            keyfile.promote_new_key(self._home)
            return
        if not os.access(self._home, os.W_OK):
            return  # the key was found all the same; somebody who may write will finish it
        with keyfile.rotation_lock(self._home) as free:
            waiting = keyfile.read_key(self._home / keyfile.NEW_FILE) if free else None
            if waiting is not None and _fitting(waiting, row) is not None:
                keyfile.promote_new_key(self._home)


def _fitting(material: Material, row: rows.KeyRow) -> Box | None:
    box = Box(material, row.key_id, row.salt)
    return box if box.fits(row.check_value) else None


def _same_key(row: rows.KeyRow | None, box: Box) -> None:
    if row is None or row.key_id != box.key_id:
        raise _KeyChanged


def _opened(box: Box, row: rows.SecretRow) -> bytes:
    """The value of a row. A row sealed with any other key than the one in use was put there by somebody else."""
    value = box.open(row.name, row.ciphertext)
    if row.key_id != box.key_id or not compare_digest(box.fingerprint(row.name, value), row.fingerprint):
        raise Tampered(
            f"The row of the secret `{row.name}` was changed in the database. Set it again with "
            f"`downriver secrets set {row.name}`, and find out who writes there."
        )
    return value


def _info(row: rows.SecretRow) -> SecretInfo:
    return SecretInfo(row.name, row.fingerprint, row.created_at, row.updated_at, row.last_used_at)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise VaultError(
            "A secret's name is made of letters, digits and `_`, does not begin with a digit, "
            "and has at most 128 characters: try one like API_TOKEN."
        )


def _bytes_of(name: str, value: str) -> bytes:
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise VaultError(f"The value for `{name}` is not text in UTF-8. Nothing was stored.") from None
    if not raw:
        raise VaultError(f"The value for `{name}` is empty. Nothing was stored.")
    if len(raw) > MAX_VALUE:
        raise VaultError(f"The value for `{name}` has {len(raw)} bytes; at most {MAX_VALUE} fit. Nothing was stored.")
    return raw
