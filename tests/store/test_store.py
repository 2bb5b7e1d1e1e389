"""The store: one schema, group commit that isolates failures, and moves that are guarded and recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from downriver.core.errors import BadInput, StoreError
from downriver.core.model import Asset, Refresh
from downriver.core.states import RefreshState
from downriver.store import mailboxes, refreshes
from downriver.store.db import Store, make_engine
from downriver.store.schema import HEAD, current_revision, ensure_schema
from downriver.store.tables import metadata, worker

S = RefreshState
AT = datetime(2026, 5, 29, 8, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    opened = Store.open(f"sqlite:///{tmp_path / 'downriver.db'}")
    yield opened
    opened.close()


def wanted(name, minutes=0, ref="9d2da37fa91e"):
    at = AT + timedelta(minutes=minutes)
    return Refresh(name, "mode", Asset("mode", "report", ref), S.QUEUED, created_at=at, wanted_at=at, due_at=at)


def put(store, *items):
    return store.write_now(lambda conn: refreshes.insert(conn, items, note="asked for"))


def get(store, name):
    return store.read_now(lambda conn: refreshes.get_refresh(conn, name))


def steps(store, name):
    found = store.read_now(lambda conn: refreshes.history_of(conn, name))
    return [(step.from_state, step.to_state, step.note) for step in found]


def move(store, item, target, *, held=0, note="on it"):
    after = replace(item, state=target, epoch=held + 1)
    step = refreshes.Move(item.state, held, after, note, AT)
    return store.write_now(lambda conn: refreshes.move(conn, [step])), after


# -- schema -----------------------------------------------------------------------------------------


def test_migrations_build_the_tables(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'downriver.db'}", write=True)
    ensure_schema(engine)
    with engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    assert current_revision(engine) == HEAD
    engine.dispose()


def test_head_is_the_newest_script():
    config = Config()
    config.set_main_option("script_location", "downriver.store:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_a_newer_database_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path / 'downriver.db'}"
    Store.open(url).close()
    engine = make_engine(url, write=True)
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match="newer Downriver"):
        Store.open(url)


# -- group commit -----------------------------------------------------------------------------------


def register(number, fault=None):
    def work(conn):
        row = mailboxes.WorkerRow(f"w{number}", "here", number, AT, AT)
        mailboxes.register_worker(conn, row)
        if fault is not None:
            raise fault
        return number

    return work


async def test_a_failing_write_leaves_its_neighbours_alone(store):
    faults = {3: ValueError("no"), 5: BadInput("no"), 8: KeyError("no")}
    works = [register(number, faults.get(number)) for number in range(10)]
    works.append(register(0))  # the database refuses it: there is a w0
    results = await asyncio.gather(*map(store.write, works), return_exceptions=True)
    good = [number for number in range(10) if number not in faults]
    assert [item for item in results if isinstance(item, int)] == good
    assert [results[number] for number in faults] == list(faults.values())
    assert isinstance(results[10], StoreError)
    assert [row.pid for row in await store.read(mailboxes.list_workers)] == good


async def test_rows_for_one_function_share_a_call(store):
    calls = []

    def insert(conn, rows):
        calls.append(len(rows))
        conn.execute(worker.insert(), [{"id": r, "host": "h", "pid": 1, "started_at": 1, "beat_at": 1} for r in rows])
        return [row.upper() for row in rows]

    names = [f"w{number:03d}" for number in range(200)]
    assert await asyncio.gather(*(store.batch(insert, name) for name in names)) == [name.upper() for name in names]
    assert sum(calls) == 200
    assert len(calls) < 50


async def test_a_closed_store_says_so(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'downriver.db'}")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.write(register(1))


# -- moves ------------------------------------------------------------------------------------------


def test_every_move_writes_its_history(store):
    item = wanted("rf_1")
    assert put(store, item) == [True]
    assert put(store, item) == [False]
    for held, target in enumerate([S.TRIGGERING, S.RUNNING, S.SUCCEEDED]):
        (done,), item = move(store, item, target, held=held, note=f"to {target.value}")
        assert done
        assert get(store, "rf_1").state is target
    assert steps(store, "rf_1") == [
        (None, "queued", "asked for"),
        ("queued", "triggering", "to triggering"),
        ("triggering", "running", "to running"),
        ("running", "succeeded", "to succeeded"),
    ]


@pytest.mark.parametrize(
    ("before", "target"), [(S.QUEUED, S.RUNNING), (S.SUCCEEDED, S.QUEUED), (S.RUNNING, S.QUEUED)]
)
def test_a_move_that_is_not_in_the_table_raises(store, before, target):
    put(store, wanted("rf_1"))
    with pytest.raises(ValueError, match="no move"):
        move(store, replace(wanted("rf_1"), state=before), target)
    assert len(steps(store, "rf_1")) == 1


def test_a_move_under_another_epoch_or_state_does_nothing(store):
    item = wanted("rf_1")
    put(store, item)
    assert move(store, item, S.TRIGGERING, held=7)[0] == [False]
    assert move(store, replace(item, state=S.TRIGGERING), S.RUNNING)[0] == [False]
    assert get(store, "rf_1") == item
    assert len(steps(store, "rf_1")) == 1


# -- superseding ------------------------------------------------------------------------------------


def test_newer_data_supersedes_what_is_queued(store):
    put(store, wanted("rf_old"), wanted("rf_other", ref="000000000000"))
    put(store, wanted("rf_new", minutes=1))
    assert get(store, "rf_old").state is S.SUPERSEDED
    assert "rf_new" in get(store, "rf_old").reason
    assert steps(store, "rf_old")[-1][:2] == ("queued", "superseded")
    assert get(store, "rf_new").state is S.QUEUED
    assert get(store, "rf_other").state is S.QUEUED


def test_older_data_that_comes_late_is_superseded_at_once(store):
    put(store, wanted("rf_new", minutes=1))
    assert put(store, wanted("rf_late")) == [True]
    assert get(store, "rf_late").state is S.SUPERSEDED
    assert get(store, "rf_late").ended_at is not None
    assert get(store, "rf_new").state is S.QUEUED


def test_what_is_at_work_is_not_superseded(store):
    item = wanted("rf_old")
    put(store, item)
    move(store, item, S.TRIGGERING)
    put(store, wanted("rf_new", minutes=1))
    assert get(store, "rf_old").state is S.TRIGGERING
    assert get(store, "rf_new").state is S.QUEUED
