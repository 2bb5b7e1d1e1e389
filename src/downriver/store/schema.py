"""Bringing a database to the schema of this version."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from downriver.core.errors import StoreError

HEAD: Final = "0001"
"""The newest migration. A test compares it with the migration scripts."""


def ensure_schema(engine: Engine) -> None:
    """Build or upgrade the schema. Raises StoreError when the database belongs to a newer version."""
    revision = current_revision(engine)
    if revision == HEAD:
        return  # the usual case: Alembic is not even imported (it costs a second of start-up)
    if revision is not None and revision > HEAD:
        raise StoreError(
            f"This database was made by a newer Downriver (schema {revision}, this version knows {HEAD}): "
            "install that version again, or restore the backup you made before upgrading."
        )
    upgrade(engine)


def current_revision(engine: Engine) -> str | None:
    """The schema revision of the database; None for an empty one."""
    with engine.connect() as conn:
        if not sa.inspect(conn).has_table("alembic_version"):
            return None
        revision: str | None = conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        return revision


def upgrade(engine: Engine) -> None:
    """Run the missing migrations, all in one transaction; two processes at once take turns."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "downriver.store:migrations")
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "head")
