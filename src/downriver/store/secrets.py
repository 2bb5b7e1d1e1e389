"""Rows of the vault: ciphertexts and the key's check value. What they hold is the vault's affair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from downriver.store.clock import micros, utc
from downriver.store.tables import secret, vault_key


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One encrypted secret."""

    name: str
    ciphertext: bytes
    fingerprint: str
    key_id: str
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """How to tell whether a key is the vault's: its id, the salt it is derived with, an encrypted known text."""

    key_id: str
    salt: bytes
    check_value: bytes


def put_secret(conn: Connection, row: SecretRow) -> None:
    """Store a secret; one of the same name is replaced and keeps its creation time."""
    values = {
        "ciphertext": row.ciphertext,
        "fingerprint": row.fingerprint,
        "key_id": row.key_id,
        "updated_at": micros(row.updated_at),
    }
    if not conn.execute(secret.update().where(secret.c.name == row.name).values(**values)).rowcount:
        conn.execute(secret.insert().values(name=row.name, created_at=micros(row.created_at), **values))


def get_secret(conn: Connection, name: str) -> SecretRow | None:
    """The secret of that name."""
    row = conn.execute(sa.select(secret).where(secret.c.name == name)).one_or_none()
    return None if row is None else _row(row)


def list_secrets(conn: Connection) -> list[SecretRow]:
    """Every secret, by name."""
    return [_row(row) for row in conn.execute(sa.select(secret).order_by(secret.c.name))]


def delete_secret(conn: Connection, name: str) -> bool:
    """Remove a secret; False when there was none."""
    return bool(conn.execute(secret.delete().where(secret.c.name == name)).rowcount)


def touch_secrets(conn: Connection, names: Sequence[str], at: datetime) -> None:
    """The secrets were used now."""
    conn.execute(secret.update().where(secret.c.name.in_(names)).values(last_used_at=micros(at)))


def get_key(conn: Connection) -> KeyRow | None:
    """What is known of the vault's key; None for a vault that was never used."""
    row = conn.execute(sa.select(vault_key)).one_or_none()
    return None if row is None else KeyRow(row.key_id, row.salt, row.check_value)


def put_key(conn: Connection, row: KeyRow) -> None:
    """Set what is known of the vault's key."""
    conn.execute(vault_key.delete())
    conn.execute(vault_key.insert().values(id=1, key_id=row.key_id, salt=row.salt, check_value=row.check_value))


def replace_all(conn: Connection, key: KeyRow, rows: Sequence[SecretRow]) -> None:
    """A new key with every secret encrypted anew, in one transaction."""
    put_key(conn, key)
    for row in rows:
        conn.execute(
            secret.update()
            .where(secret.c.name == row.name)
            .values(ciphertext=row.ciphertext, fingerprint=row.fingerprint, key_id=row.key_id)
        )


def _row(row: sa.Row[tuple[object, ...]]) -> SecretRow:
    values = dict(row._mapping)  # noqa: SLF001  (SQLAlchemy's documented accessor)
    for name in ("created_at", "updated_at", "last_used_at"):
        values[name] = utc(values[name])
    return SecretRow(**values)
