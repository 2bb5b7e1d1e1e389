"""What the Mode stand-in holds: reports, data sets and their runs, and how a run moves through time.

A run has no timer: its state is derived from the seconds since it was created and its `RunShape`.
Source of states and terminal sets: facts on Mode, "Status, states, failure reason" (the vendor's
Swagger document 0.0.1 and live observations recorded by mode-sdk 0.1.0).
"""

from __future__ import annotations

import functools
import heapq
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

ENDED = frozenset({"succeeded", "completed", "failed", "cancelled"})
"""States after which a Mode run does not move any more."""
GOOD = frozenset({"succeeded", "completed"})

SQL_CANARY = "sql-canary-4f1d"
"""Stands in every `raw_source` and `rendered_source`; must never turn up in anybody's log or history."""


class QueryFailure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a run failed; shown only under `query_runs`, as Mode does."""

    error_code: str = "SqlUnknownFunction"
    error_type: str = "generic"
    error_message: str = "Unknown function date_trunk at position 27"
    help_url: str = "https://mode.com/help/articles/query-errors"


class RunShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run goes: states with their length in seconds, then the state it stays in.

    A `final` state that is not in `ENDED` makes a run that never ends.
    """

    phases: tuple[tuple[Annotated[float, msgspec.Meta(ge=0)], str], ...] = ((0.0, "enqueued"),)
    final: str = "succeeded"
    failure: QueryFailure | None = None
    """The failing query's words when `final` is `failed`; `None` gives the default ones."""

    @functools.lru_cache(maxsize=256)  # noqa: B019 - a shape is a small frozen value; thousands of runs share a few
    def scaled(self, factor: float) -> RunShape:
        """The same shape with every length multiplied; 0 makes it end (or stall) at once."""
        return RunShape(
            phases=tuple((seconds * factor, state) for seconds, state in self.phases),
            final=self.final,
            failure=self.failure,
        )

    @property
    def first(self) -> str:
        """The state the answer to the POST shows."""
        return self.phases[0][1] if self.phases else self.final

    @property
    def seconds(self) -> float:
        """Seconds until the final state."""
        return sum(seconds for seconds, _ in self.phases)

    def state(self, elapsed: float) -> str:
        """The state `elapsed` seconds after creation."""
        for seconds, state in self.phases:
            if elapsed < seconds:
                return state
            elapsed -= seconds
        return self.final

    @property
    def notebook(self) -> bool:
        """Whether the report has a notebook: such runs end in `completed`."""
        return self.final == "completed" or any(state == "running_notebook" for _, state in self.phases)


SHAPES: dict[str, RunShape] = {
    "instant": RunShape(),
    "quick": RunShape(phases=((0.3, "enqueued"), (0.9, "pending"))),
    "slow": RunShape(phases=((2.0, "enqueued"), (20.0, "pending"))),
    "notebook": RunShape(phases=((0.3, "enqueued"), (0.5, "pending"), (0.5, "running_notebook")), final="completed"),
    "failing": RunShape(phases=((0.3, "enqueued"), (0.6, "pending")), final="failed"),
    "cancelled": RunShape(phases=((0.3, "enqueued"), (0.6, "pending")), final="cancelled"),
    # Through a state no document names, then fine: an open enum must not end the watching.
    "odd": RunShape(phases=((0.3, "enqueued"), (0.6, "warming_up"))),
    "unknown": RunShape(phases=((0.3, "enqueued"),), final="on_hold"),
    "endless": RunShape(phases=((0.3, "enqueued"),), final="pending"),
}

ShapeOrName = RunShape | str


def shape_of(wanted: ShapeOrName) -> RunShape:
    """A shape, or the named one out of `SHAPES`. `ValueError` for an unknown name."""
    if isinstance(wanted, RunShape):
        return wanted
    try:
        return SHAPES[wanted]
    except KeyError:
        raise ValueError(f"no run shape {wanted!r}; known: {', '.join(SHAPES)}") from None


class ModeReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A report (or data set) as it is set up; also the JSON of `PUT /_sandbox/mode/reports/<token>`."""

    token: str
    name: str = "Report"
    type: Literal["Report", "DatasetReport"] = "Report"
    shape: ShapeOrName = "quick"
    archived: bool = False
    manual_run_disabled: bool = False
    refuses_runs: bool | None = None
    """Whether a POST of a run is refused (403). `None`: refused when archived or manual runs are off.
    What Mode's API really does then is not documented."""
    imports: tuple[str, ...] = ()
    """Tokens of the data sets it imports."""
    queries: tuple[str, ...] = ("Main query",)
    """Names of its queries; the last one is the one that fails when a run fails."""

    def __post_init__(self) -> None:
        shape_of(self.shape)

    @property
    def refuses(self) -> bool:
        if self.refuses_runs is None:
            return self.archived or self.manual_run_disabled
        return self.refuses_runs


@dataclass(slots=True, eq=False)
class ModeRun:
    """One run of a report or of a data set."""

    token: str
    number: int
    report: Holder = field(repr=False)
    parameters: dict[str, object]
    created: float
    """Seconds since the epoch, by the stand-in's own clock."""
    shape: RunShape
    executed_by: str
    refreshed_datasets: tuple[str, ...] = ()
    """Set when the run came from 'refresh imported data sets' and not from 'run report'."""
    purge_started: float | None = None
    ends: float | None = field(init=False)
    """When it will have ended; `None`: never."""

    def __post_init__(self) -> None:
        self.take(self.shape)

    def take(self, shape: RunShape) -> None:
        """Go this way (from the run's beginning on)."""
        self.shape = shape
        self.ends = self.created + shape.seconds if shape.final in ENDED else None

    def state(self, now: float) -> str:
        return self.shape.state(now - self.created)

    def ended(self, now: float) -> float | None:
        """When it ended, or `None` while it has not."""
        return self.ends if self.ends is not None and self.ends <= now else None

    def updated(self, now: float) -> float:
        """When its state last changed."""
        at = self.created
        for seconds, _ in self.shape.phases:
            if at + seconds > now:
                break
            at += seconds
        return at

    def python_state(self, now: float) -> str:
        """`python_state` of the report run: `none` without a notebook."""
        if not self.shape.notebook:
            return "none"
        return {"running_notebook": "submitted", "completed": "succeeded", "failed": "failed"}.get(
            self.state(now), "pending"
        )


@dataclass(slots=True, eq=False)
class Holder:
    """A report or data set with its runs."""

    spec: ModeReport
    id: int
    created: float
    runs: list[ModeRun] = field(default_factory=list)
    next_shapes: deque[RunShape] = field(default_factory=deque)
    """One-shots: the next runs take these, then `spec.shape` applies again."""
    last_success: ModeRun | None = None
    last_ended: ModeRun | None = None
    _ends: list[tuple[float, int, ModeRun]] = field(default_factory=list, repr=False)

    def add(self, run: ModeRun) -> None:
        self.runs.append(run)
        self.expect_end(run)

    def expect_end(self, run: ModeRun) -> None:
        """Remember when the run will end, so that the newest success need not be searched for."""
        if run.ends is not None:
            heapq.heappush(self._ends, (run.ends, run.number, run))

    def settle(self, now: float) -> None:
        """Take note of the runs that have ended by now."""
        while self._ends and self._ends[0][0] <= now:
            _, _, run = heapq.heappop(self._ends)
            if run.ended(now) is None:
                continue
            if self.last_ended is None or run.number > self.last_ended.number:
                self.last_ended = run
            newer = self.last_success is None or run.number > self.last_success.number
            if run.shape.final in GOOD and newer:
                self.last_success = run

    @property
    def failed_since_success(self) -> bool:
        return self.last_ended is not None and self.last_ended.shape.final not in GOOD


class ModeWorld:
    """All reports, data sets and runs of one workspace, in memory."""

    def __init__(
        self, reports: tuple[ModeReport, ...], *, time_scale: float, auto_reports: bool, clock_skew: float
    ) -> None:
        self.time_scale = time_scale
        self.auto_reports = auto_reports
        self.clock_skew = clock_skew
        self.holders: dict[str, Holder] = {}
        self.runs: dict[str, ModeRun] = {}
        self._number = 0
        self._dice = random.SystemRandom()
        for report in reports:
            self.put(report)

    def now(self) -> float:
        """The stand-in's clock, seconds since the epoch."""
        return time.time() + self.clock_skew

    def put(self, spec: ModeReport) -> Holder:
        """Set a report up, or change one that is there (its runs stay)."""
        holder = self.holders.get(spec.token)
        if holder is None:
            holder = Holder(spec, 2_900_000 + len(self.holders), self.now())
            self.holders[spec.token] = holder
        else:
            holder.spec = spec
        return holder

    def find(self, token: str) -> Holder | None:
        """The report or data set; with `auto_reports`, any 12 hex digits are a report."""
        holder = self.holders.get(token)
        if holder is None and self.auto_reports and is_token(token):
            holder = self.put(ModeReport(token=token, name=f"Report {token}"))
        return holder

    def start(
        self,
        holder: Holder,
        parameters: dict[str, object],
        executed_by: str,
        refreshed_datasets: tuple[str, ...] = (),
    ) -> ModeRun:
        """A new run: two equal requests make two runs."""
        token = f"{self._dice.getrandbits(48):012x}"
        while token in self.runs or token in self.holders:
            token = f"{self._dice.getrandbits(48):012x}"
        self._number += 1
        wanted = holder.next_shapes.popleft() if holder.next_shapes else shape_of(holder.spec.shape)
        run = ModeRun(
            token=token,
            number=self._number,
            report=holder,
            parameters=parameters,
            created=self.now(),
            shape=wanted.scaled(self.time_scale),
            executed_by=executed_by,
            refreshed_datasets=refreshed_datasets,
        )
        self.runs[token] = run
        holder.add(run)
        return run

    def end(self, run: ModeRun, state: str) -> None:
        """Put a run into `state` from now on (for runs that would never end by themselves)."""
        now = self.now()
        gone = now - run.created
        run.take(RunShape(phases=((gone, run.state(now)),), final=state, failure=run.shape.failure))
        run.report.expect_end(run)


def is_token(text: str) -> bool:
    """Whether `text` has the form of a Mode token: 12 lowercase hex digits."""
    return len(text) == 12 and all(letter in "0123456789abcdef" for letter in text)


REPORTS: tuple[ModeReport, ...] = (
    ModeReport(token="9d2da37fa91e", name="Weekly revenue", queries=("Revenue by week", "Targets")),  # noqa: S106
    ModeReport(token="3a7be19c04d2", name="Orders notebook", shape="notebook"),  # noqa: S106
    ModeReport(token="5b0c6f2e8a13", name="Orders with a broken query", shape="failing"),  # noqa: S106
    ModeReport(token="6c1d7a3f9b24", name="Quarter close", shape="slow"),  # noqa: S106
    ModeReport(token="7d2e8b4a0c35", name="Cancelled by an admin", shape="cancelled"),  # noqa: S106
    ModeReport(token="8e3f9c5b1d46", name="Unheard-of state on the way", shape="odd"),  # noqa: S106
    ModeReport(token="9f40ad6c2e57", name="Unheard-of state for ever", shape="unknown"),  # noqa: S106
    ModeReport(token="a051be7d3f68", name="Never ends", shape="endless"),  # noqa: S106
    ModeReport(token="b162cf8e4079", name="Archived last year", archived=True),  # noqa: S106
    ModeReport(token="c273d09f518a", name="Schedule only", manual_run_disabled=True),  # noqa: S106
    ModeReport(token="24f66e1701b6", name="Customers", type="DatasetReport"),  # noqa: S106
    ModeReport(token="d384e1a0629b", name="Customers by region", imports=("24f66e1701b6",)),  # noqa: S106
)
"""The reports a fresh sandbox holds; `9d2da37fa91e` is the one the documentation uses."""
