"""What dbt's commands did: `run_results.json` and `sources.json` (facts/dbt.md §3.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from downriver.core.model import Json, NodeResult
from downriver.sources.reading import (
    CAP_BYTES,
    Raw,
    as_mapping,
    as_object,
    as_text,
    as_time,
    check_kind,
    check_size,
    decode,
    from_file,
)

BUILDING = frozenset({"build", "run", "seed", "snapshot", "test"})
"""The commands whose results say what was built. `docs generate` and `compile` call everything a success."""


@dataclass(frozen=True, slots=True)
class RunResults:
    """One command's `run_results.json`. `which` is dbt's own word for the command (`build`, `generate`, …)."""

    invocation_id: str
    which: str
    results: tuple[NodeResult, ...]
    generated_at: datetime | None = None
    command: str | None = None
    dbt_version: str = ""
    schema_version: int = 0
    elapsed_seconds: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def building(self) -> bool:
        """Whether these results say what was built. A retry carries the word of the command it retried."""
        return self.which in BUILDING


@dataclass(frozen=True, slots=True)
class SourceFreshness:
    """How fresh dbt found one source table. `status` as given: pass, warn, error, runtime error."""

    unique_id: str
    status: str
    max_loaded_at: datetime | None = None
    snapshotted_at: datetime | None = None
    age_seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SourcesFreshness:
    """One `dbt source freshness`: its `sources.json`."""

    invocation_id: str
    results: tuple[SourceFreshness, ...]
    generated_at: datetime | None = None
    notes: tuple[str, ...] = ()


class _Timing(msgspec.Struct, gc=False):
    name: str | None = None
    completed_at: str | None = None


class _Adapter(msgspec.Struct, gc=False):
    rows_affected: Json = None


class _Result(msgspec.Struct, gc=False):
    unique_id: str | None = None
    status: str | None = None
    message: str | None = None
    failures: int | None = None
    execution_time: float | None = None
    timing: list[_Timing] | None = None
    adapter_response: _Adapter | str | None = None


class _RunResults(msgspec.Struct, gc=False):
    metadata: Json = None
    results: list[msgspec.Raw] | None = None
    args: Json = None
    elapsed_time: float | None = None


def decode_run_results_file(path: Path, *, cap: int = CAP_BYTES, name: str | None = None) -> RunResults:
    """The results of one command, from disk. Raises BadInput."""
    return from_file(path, cap, lambda data: decode_run_results(data, name=name or path.name, cap=cap))


def decode_run_results(data: Raw, *, name: str = "run_results.json", cap: int = CAP_BYTES) -> RunResults:
    """The results of one command: one NodeResult per node it ran. Raises BadInput naming `name`."""
    check_size(len(data), cap, name)
    document = decode(data, _RunResults, name)
    notes: list[str] = []
    metadata = as_mapping(document.metadata)
    version = check_kind(metadata, "run-results", name, notes)
    args = as_mapping(document.args)
    command = as_text(args.get("invocation_command"))
    decoder = msgspec.json.Decoder(_Result, strict=False)
    results = [_node_result(raw, decoder, notes) for raw in document.results or ()]
    return RunResults(
        invocation_id=as_text(metadata.get("invocation_id")) or "",
        which=as_text(args.get("which")) or _command_word(command),
        results=tuple(result for result in results if result is not None),
        generated_at=as_time(metadata.get("generated_at")),
        command=command,
        dbt_version=as_text(metadata.get("dbt_version")) or "",
        schema_version=version,
        elapsed_seconds=document.elapsed_time,
        notes=tuple(notes),
    )


def merge_results(parts: Iterable[RunResults]) -> tuple[NodeResult, ...]:
    """What the building commands of one run did, by node: of several results of a node the last counts.

    Give the parts oldest first. Parts that build nothing (`docs generate`, `compile`) are left out.
    """
    merged = {result.unique_id: result for part in parts if part.building for result in part.results}
    return tuple(merged[unique_id] for unique_id in sorted(merged))


def _node_result(raw: msgspec.Raw, decoder: msgspec.json.Decoder[_Result], notes: list[str]) -> NodeResult | None:
    try:
        result = decoder.decode(raw)
    except (ValueError, RecursionError) as error:
        entry = as_object(raw)
        result = _Result(unique_id=as_text(entry.get("unique_id")), status=as_text(entry.get("status")))
        notes.append(f"the result of {result.unique_id} is read by its status alone: {error}")
    if not result.unique_id:
        notes.append("a result without unique_id is left out")
        return None
    times = {timing.name: timing.completed_at for timing in result.timing or ()}
    rows = result.adapter_response.rows_affected if isinstance(result.adapter_response, _Adapter) else None
    return NodeResult(
        unique_id=result.unique_id,
        status=result.status or "unknown",
        message=_short(result.message),
        failures=result.failures,
        execution_time=result.execution_time,
        completed_at=as_time(times.get("execute") or times.get("compile")),
        rows_affected=rows if type(rows) is int and rows >= 0 else None,
    )


def _command_word(command: str | None) -> str:
    words = (command or "").split()
    known = BUILDING | {"compile", "docs", "freshness", "clone", "list", "ls", "show", "parse", "run-operation"}
    return next((word for word in words[1:] if word in known), "")


_SQL_STARTS = re.compile(r"^\s*(LINE \d+:|compiled code at\b|== SQL ==|\[SQL:)", re.IGNORECASE)


def _short(message: str | None) -> str | None:
    """dbt's message up to where it quotes SQL: at most three lines, 300 characters."""
    lines: list[str] = []
    for line in (message or "").splitlines():
        if _SQL_STARTS.match(line) or len(lines) == 3:
            break
        if line.strip():
            lines.append(line.strip())
    return " · ".join(lines).split("[SQL:")[0].strip()[:300] or None


class _Freshness(msgspec.Struct, gc=False):
    unique_id: str | None = None
    status: str | None = None
    max_loaded_at: str | None = None
    snapshotted_at: str | None = None
    max_loaded_at_time_ago_in_s: float | None = None
    error: Json = None


class _Sources(msgspec.Struct, gc=False):
    metadata: Json = None
    results: list[_Freshness] | None = None


def decode_sources_file(path: Path, *, cap: int = CAP_BYTES, name: str | None = None) -> SourcesFreshness:
    """The outcome of `dbt source freshness`, from disk. Raises BadInput."""
    return from_file(path, cap, lambda data: decode_sources(data, name=name or path.name, cap=cap))


def decode_sources(data: Raw, *, name: str = "sources.json", cap: int = CAP_BYTES) -> SourcesFreshness:
    """The outcome of `dbt source freshness`, one entry per table checked. Raises BadInput naming `name`."""
    check_size(len(data), cap, name)
    document = decode(data, _Sources, name)
    notes: list[str] = []
    metadata = as_mapping(document.metadata)
    check_kind(metadata, "sources", name, notes)
    return SourcesFreshness(
        invocation_id=as_text(metadata.get("invocation_id")) or "",
        generated_at=as_time(metadata.get("generated_at")),
        notes=tuple(notes),
        results=tuple(
            SourceFreshness(
                unique_id=one.unique_id,
                status=one.status or "unknown",
                max_loaded_at=as_time(one.max_loaded_at),
                snapshotted_at=as_time(one.snapshotted_at),
                age_seconds=one.max_loaded_at_time_ago_in_s,
                error=_short(as_text(one.error)),
            )
            for one in document.results or ()
            if one.unique_id
        ),
    )
