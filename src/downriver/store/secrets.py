"""The vault's rows: sealed secrets, and the check value of the key that seals them.

Nothing here can open a secret; what the bytes mean is the vault's business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from downriver.store.clock import micros, utc
from downriver.store.tables import secret, vault_key

_ONLY = 1
"""The id of the one row of `vault_key`."""


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One sealed secret. `key_id` names the key that sealed it."""

    name: str
    ciphertext: bytes = field(repr=False)
    fingerprint: str
    key_id: str
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What tells the right key from a wrong one. `salt` goes into its derivation."""

    key_id: str
    salt: bytes = field(repr=False)
    check_value: bytes = field(repr=False)


def put_secret(conn: Connection, row: SecretRow) -> SecretRow:
    """Store a secret, in the place of one with the same name. A replaced one keeps when it was first made."""
    values = _values(row)
    known = conn.execute(sa.select(secret.c.created_at).where(secret.c.name == row.name)).scalar()
    if known is None:
        conn.execute(secret.insert().values(values))
    else:
        values["created_at"] = known
        conn.execute(secret.update().where(secret.c.name == row.name).values(values))
    return get_secret(conn, row.name) or row


def get_secret(conn: Connection, name: str) -> SecretRow | None:
    """The secret of that name."""
    found = conn.execute(sa.select(secret).where(secret.c.name == name)).mappings().first()
    return _row(found) if found is not None else None


def all_secrets(conn: Connection) -> tuple[SecretRow, ...]:
    """Every secret, in the order of their names."""
    return tuple(_row(found) for found in conn.execute(sa.select(secret).order_by(secret.c.name)).mappings())


def count_secrets(conn: Connection) -> int:
    """How many secrets there are."""
    return conn.execute(sa.select(sa.func.count()).select_from(secret)).scalar_one()


def delete_secret(conn: Connection, name: str) -> bool:
    """Remove a secret. False: there was none of that name."""
    return conn.execute(secret.delete().where(secret.c.name == name)).rowcount > 0


def touch_secrets(conn: Connection, names: Collection[str], at: datetime) -> None:
    """Note that these were used at `at`."""
    conn.execute(secret.update().where(secret.c.name.in_(sorted(names))).values(last_used_at=micros(at)))


def replace_all_secrets(conn: Connection, rows: Iterable[SecretRow]) -> None:
    """Put exactly `rows` in the place of everything there is."""
    conn.execute(secret.delete())
    values = [_values(row) for row in rows]
    if values:
        conn.execute(secret.insert(), values)


def get_key_row(conn: Connection) -> KeyRow | None:
    """The check value of the key in use; None before the first secret."""
    query = sa.select(vault_key.c.key_id, vault_key.c.salt, vault_key.c.check_value).where(vault_key.c.id == _ONLY)
    found = conn.execute(query).first()
    return KeyRow(found.key_id, bytes(found.salt), bytes(found.check_value)) if found is not None else None


def set_key_row(conn: Connection, row: KeyRow) -> None:
    """Make `row` the key in use."""
    delete_key_row(conn)
    conn.execute(vault_key.insert().values(id=_ONLY, key_id=row.key_id, salt=row.salt, check_value=row.check_value))


def delete_key_row(conn: Connection) -> None:
    """Forget the key in use."""
    conn.execute(vault_key.delete())


def _values(row: SecretRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "ciphertext": row.ciphertext,
        "fingerprint": row.fingerprint,
        "key_id": row.key_id,
        "created_at": micros(row.created_at),
        "updated_at": micros(row.updated_at),
        "last_used_at": micros(row.last_used_at),
    }


def _row(found: RowMapping) -> SecretRow:
    return SecretRow(
        name=found["name"],
        ciphertext=bytes(found["ciphertext"]),
        fingerprint=found["fingerprint"],
        key_id=found["key_id"],
        created_at=utc(found["created_at"]),
        updated_at=utc(found["updated_at"]),
        last_used_at=utc(found["last_used_at"]),
    )
