"""Every table, for SQLite and Postgres alike. The migrations build the same schema (a test compares)."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives rowids (and so fast appends) only to INTEGER PRIMARY KEY.
_Seq = BigInteger().with_variant(Integer, "sqlite")
_Time = BigInteger

event = Table(
    "event",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("run_id", Text),
    Column("job_id", Text),
    Column("job_name", Text),
    Column("run_status", Text),
    Column("received_at", _Time, nullable=False),
    Column("occurred_at", _Time),
    Column("key", Text),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # new: waits for its source driver; done: nothing more to do, `note` says what was done.
    Column("state", Text, nullable=False),
    Column("done_at", _Time),
    Column("note", Text),
    Column("plan_id", Text),
    # How often a person asked for it again; each gives the plan a further revision.
    Column("replays", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("source", "event_id"),
)
Index("ix_event_new", event.c.source, event.c.seq, sqlite_where=event.c.state == "new",
      postgresql_where=event.c.state == "new")  # fmt: skip

rejection = Table(
    "rejection",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("received_at", _Time, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("remote", Text),
)

run = Table(
    "run",
    metadata,
    Column("source", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("status_word", Text, nullable=False),
    Column("job_id", Text),
    Column("job_name", Text),
    Column("environment_id", Text),
    Column("environment_name", Text),
    Column("project_id", Text),
    Column("project_name", Text),
    Column("account_id", Text),
    Column("reason", Text),
    Column("started_at", _Time),
    Column("finished_at", _Time),
    Column("updated_at", _Time, nullable=False),
)

plan = Table(
    "plan",
    metadata,
    Column("id", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("event_id", Text),
    Column("created_at", _Time, nullable=False),
    UniqueConstraint("source", "run_id", "revision"),
)

decision = Table(
    "decision",
    metadata,
    Column("plan_id", Text, primary_key=True),
    Column("dashboard", Text, primary_key=True),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("path", JSON, nullable=False),
    # The asset keys, and for `refresh` the id of the refresh that serves it: [{connection, key, refresh_id}].
    Column("assets", JSON, nullable=False),
)

refresh = Table(
    "refresh",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("connection", Text, nullable=False),
    Column("asset_key", Text, nullable=False),
    # {kind, ref, parameters, title, url}
    Column("asset", JSON, nullable=False),
    Column("dashboards", JSON, nullable=False),
    Column("source", Text),
    Column("run_id", Text),
    Column("plan_id", Text),
    Column("state", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("wanted_at", _Time, nullable=False),
    Column("due_at", _Time, nullable=False),
    Column("intent_at", _Time),
    Column("deadline_at", _Time),
    Column("started_at", _Time),
    Column("ended_at", _Time),
    # {id, created_at, url, data}
    Column("ticket", JSON(none_as_null=True)),
    Column("reason", Text),
    Column("url", Text),
)
Index("ix_refresh_work", refresh.c.connection, refresh.c.state, refresh.c.due_at)
Index("ix_refresh_asset", refresh.c.connection, refresh.c.asset_key, refresh.c.wanted_at)
Index("ix_refresh_run", refresh.c.source, refresh.c.run_id)

history = Table(
    "history",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("refresh_id", Text, nullable=False),
    Column("at", _Time, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)
Index("ix_history_refresh_id", history.c.refresh_id, history.c.seq)

mailbox = Table(
    "mailbox",
    metadata,
    Column("name", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("worker_id", Text),
    Column("taken_at", _Time),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", _Time, nullable=False),
    Column("beat_at", _Time, nullable=False),
)

secret = Table(
    "secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("last_used_at", _Time),
)

vault_key = Table(
    "vault_key",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("key_id", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("check_value", LargeBinary, nullable=False),
)
