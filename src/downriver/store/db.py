"""The database, opened: one writer thread that shares commits, a few readers, one way in.

`Store.write` and `Store.batch` hand work to the writer thread. Whatever waits there when it is free
goes into one transaction and one commit (group commit), each piece behind its own savepoint, and
nobody is answered before that commit is durable. `Store.read` runs on reader threads.

SQLite runs in WAL mode with `synchronous=FULL`: a commit that was answered survives a power cut.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from downriver.core.errors import DownriverError, StoreError
from downriver.store.schema import ensure_schema

T = TypeVar("T")
Row = TypeVar("Row")
Result = TypeVar("Result")

BUSY_SECONDS: Final = 5.0
"""How long a writer waits for another process's lock. dbt gives a webhook 10 s, so an honest 503 still fits."""
_MAX_JOBS: Final = 2_000
_READERS: Final = 2


@dataclass(slots=True)
class _Job:
    """One piece of work for the writer: `fn(conn)` alone, or `fn(conn, rows)` joined with its neighbours."""

    fn: Callable[..., Any]
    row: Any = None
    is_row: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | Future[Any] | None = None
    result: Any = None
    error: BaseException | None = field(default=None)


class Store:
    """An open database. Make it with `Store.open`; close it with `close`."""

    def __init__(self, writer: Engine, reader: Engine) -> None:
        self._writer = writer
        self._reader = reader
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._closed = False
        self._watcher: Connection | None = None
        self._seen_version: int | None = None
        self._thread.start()

    @classmethod
    def open(cls, url: str) -> Store:
        """Open the database at a SQLAlchemy `url`, building or upgrading its schema.

        Raises StoreError when it cannot be opened, or was made by a newer version.
        """
        try:
            writer, reader = make_engine(url, write=True), make_engine(url, write=False)
            ensure_schema(writer)
        except (DBAPIError, OSError) as error:
            raise explain(error) from error
        return cls(writer, reader)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._writer.dialect.name

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn(conn)` in a transaction; returns after the commit is durable.

        Raises what `fn` raised (its own changes undone, its neighbours' kept) or StoreError.
        """
        return cast("T", await self._submit(_Job(fn)))

    async def batch(self, fn: Callable[[Connection, Sequence[Row]], Sequence[Result]], row: Row) -> Result:
        """Have `row` handled by `fn(conn, rows)` together with the rows of concurrent calls for the same `fn`.

        `fn` returns one result per row, in order. The commit is durable before anybody is answered.
        """
        return cast("Result", await self._submit(_Job(fn, row, is_row=True)))

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn(conn)` on a reader thread, in a read transaction."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, fn)

    async def changed_elsewhere(self) -> bool:
        """Whether another connection has committed since the last time this was asked (SQLite).

        Our own writer counts as another one: a true answer means "look", not "somebody else". On Postgres,
        which tells nobody so cheaply, the answer is always to look.
        """
        if self.dialect != "sqlite":
            return True
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._version_moved)

    def _version_moved(self) -> bool:
        try:
            if self._watcher is None:
                self._watcher = self._reader.connect()
            version = self._watcher.exec_driver_sql("PRAGMA data_version").scalar()
            self._watcher.rollback()
        except DBAPIError as error:
            raise explain(error) from error
        moved = version != self._seen_version
        self._seen_version = version
        return moved

    def write_now(self, fn: Callable[[Connection], T]) -> T:
        """`write` for callers without an event loop."""
        job = _Job(fn, future=Future())
        self._put(job)
        return cast("T", cast("Future[Any]", job.future).result())

    def read_now(self, fn: Callable[[Connection], T]) -> T:
        """`read` for callers without an event loop."""
        try:
            with self._reader.connect() as conn:
                return fn(conn)
        except DBAPIError as error:
            raise explain(error) from error

    def close(self) -> None:
        """Finish the writes at hand and close every connection. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._readers.shutdown(wait=True)
        if self._watcher is not None:
            self._watcher.close()
        self._writer.dispose()
        self._reader.dispose()

    def _put(self, job: _Job) -> None:
        if self._closed:
            raise StoreError("The database is closed: Downriver is shutting down.")
        self._jobs.put(job)

    async def _submit(self, job: _Job) -> Any:
        job.loop = asyncio.get_running_loop()
        job.future = job.loop.create_future()
        self._put(job)
        return await job.future

    # -- the writer thread ------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            jobs = self._take()
            if jobs:
                self._transact(jobs)
                _deliver(jobs)
            if jobs is None:
                return

    def _take(self) -> list[_Job] | None:
        """Wait for work, then take all that waits. None: closing, and nothing is left."""
        first = self._jobs.get()
        if first is None:
            return None
        jobs = [first]
        with suppress(queue.Empty):
            while len(jobs) < _MAX_JOBS:
                job = self._jobs.get_nowait()
                if job is None:
                    self._jobs.put(None)
                    break
                jobs.append(job)
        return jobs

    def _transact(self, jobs: list[_Job]) -> None:
        try:
            with self._writer.begin() as conn:
                groups = _grouped(jobs)
                for group in groups:
                    _run_group(conn, group, alone=len(groups) == 1)
        except SQLAlchemyError as error:
            fault = explain(error)
            for job in jobs:
                job.error = job.error or fault
        except _Undone:
            pass  # the only group failed and its transaction was rolled back: its jobs carry the error


class _Undone(Exception):
    """The transaction held one group alone, and that group failed."""


def _grouped(jobs: list[_Job]) -> list[list[_Job]]:
    """Rows for the same function together (in order), every other job by itself."""
    rows: dict[Callable[..., Any], list[_Job]] = {}
    groups: list[list[_Job]] = []
    for job in jobs:
        if not job.is_row:
            groups.append([job])
        elif job.fn in rows:
            rows[job.fn].append(job)
        else:
            rows[job.fn] = group = [job]
            groups.append(group)
    return groups


def _run_group(conn: Connection, group: list[_Job], *, alone: bool) -> None:
    try:
        if alone:  # a savepoint would only cost time: the transaction itself is the savepoint
            _call(conn, group)
        else:
            with conn.begin_nested():
                _call(conn, group)
    except (DownriverError, SQLAlchemyError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        fault = explain(error) if isinstance(error, SQLAlchemyError) else error
        for job in group:
            job.error = fault
        if alone:
            raise _Undone from error
        if isinstance(error, DBAPIError) and not conn.in_transaction():
            raise


def _call(conn: Connection, group: list[_Job]) -> None:
    if group[0].is_row:
        results = group[0].fn(conn, [job.row for job in group])
        for job, result in zip(group, results, strict=True):
            job.result = result
    else:
        group[0].result = group[0].fn(conn)


def _deliver(jobs: list[_Job]) -> None:
    """Answer everybody: one wake-up per event loop, not one per job."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        if job.loop is None:
            _resolve(job)
        else:
            by_loop.setdefault(job.loop, []).append(job)
    for loop, mine in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed while we committed: nobody is waiting any more
            loop.call_soon_threadsafe(_resolve_all, mine)


def _resolve_all(jobs: list[_Job]) -> None:
    for job in jobs:
        _resolve(job)


def _resolve(job: _Job) -> None:
    future = job.future
    if future is None or future.done():
        return
    if job.error is not None:
        future.set_exception(job.error)
    else:
        future.set_result(job.result)


# -- engines --------------------------------------------------------------------------------------


def _pragmas(raw: Any) -> None:
    cursor = raw.cursor()
    for pragma in (
        f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "temp_store=MEMORY",
        "journal_size_limit=67108864",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def make_placement_engine(url: str) -> Engine:
    """An engine with our settings for DBOS, which begins its own transactions."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_size=2, max_overflow=4, pool_pre_ping=True)
    engine = sa.create_engine(url)
    sa.event.listen(engine, "connect", lambda raw, _record: _pragmas(raw))
    return engine


def make_engine(url: str, *, write: bool) -> Engine:
    """A SQLAlchemy engine with our settings. Write engines of SQLite begin with `BEGIN IMMEDIATE`."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_size=2, max_overflow=2, pool_pre_ping=True)
    engine = sa.create_engine(url, pool_size=1 if write else _READERS, max_overflow=1 if write else 3)

    def on_connect(raw: Any, _record: Any) -> None:
        # We begin transactions ourselves: the driver's own way takes the write lock too late.
        raw.isolation_level = None
        _pragmas(raw)

    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", lambda conn: conn.exec_driver_sql(begin))
    return engine


_SAYINGS: Final = (
    ("disk is full", "The disk is full: free some space; nothing was acknowledged that is not stored."),
    ("readonly", "The data directory or database file is read-only: make it writable for this user."),
    ("database is locked", f"Another process has held the database lock for more than {BUSY_SECONDS:.0f} s: "
     "find it with `fuser` on the database file, and stop it or let it finish."),
    ("unable to open", "The database file cannot be opened: does its directory exist, may this user write there?"),
    ("not a database", "The file is not a Downriver database, or is damaged: restore a backup, or move it away."),
    ("malformed", "The database file is damaged: restore a backup (`sqlite3 FILE '.recover'` may save the rest)."),
    ("disk I/O error", "The disk reports an error: check the file system."),
)  # fmt: skip


def explain(error: BaseException) -> StoreError:
    """A database error as a StoreError that says what to do. Never holds bound values."""
    raw = str(getattr(error, "orig", None) or error).splitlines()[0]
    for needle, saying in _SAYINGS:
        if needle.lower() in raw.lower():
            return StoreError(f"{saying} (the database says: {raw})")
    return StoreError(f"The database cannot do that right now: {raw}")
