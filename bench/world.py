"""What the service benches share: processes with their logs in files, a project, signed webhooks, medians."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEY = "bench-webhook-key"
ROOT = Path(__file__).resolve().parent.parent
DOWNRIVER = str(Path(sys.executable).parent / "downriver")
REPORTS = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing: its values, one per repeat."""

    bench: str
    what: str
    unit: str
    values: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """With median, smallest and largest."""
        return {
            "bench": self.bench,
            "what": self.what,
            "unit": self.unit,
            "median": statistics.median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


@dataclass(frozen=True, slots=True)
class Process:
    """A started process; `first` is the first line it printed that holds the awaited word."""

    pid: int
    first: str


@contextmanager
def process(
    command: Sequence[str], log: Path, *, awaited: str, environ: dict[str, str] | None = None, seconds: float = 30
) -> Iterator[Process]:
    """Start it, wait for the word in its output (kept in the file `log`), end it by SIGTERM. Raises RuntimeError."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, **(environ or {})}
        )
    try:
        yield Process(child.pid, _line(child, log, awaited, seconds))
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _line(child: subprocess.Popen[bytes], log: Path, awaited: str, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if awaited in line and line.endswith("\n"):
                return line.strip()
        if child.poll() is not None:
            break
        time.sleep(0.005)
    raise RuntimeError(f"No line with {awaited!r} from {child.args!r}: {log.read_text(errors='replace')[-1500:]}")


@contextmanager
def sandbox(home: Path) -> Iterator[dict[str, Any]]:
    """The instant stand-ins in a process of their own; what they say of themselves."""
    command = [sys.executable, "-m", "downriver.sandbox", "--instant"]
    with process(command, home / "sandbox.log", awaited='"control"') as child:
        yield json.loads(child.first)


@contextmanager
def serve(home: Path, mode: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """`downriver serve` on SQLite, with 100 dashboards (job n refreshes report n): its pid and its address, ready."""
    home.mkdir(exist_ok=True)
    dashboards = [
        {"name": f"d{n}", "connection": "mode", "report": report(n), "refresh_on": {"source": "a", "jobs": [n]}}
        for n in range(1, REPORTS + 1)
    ]
    # The stand-in has no limits, so the service gets none worth the name either: JSON is YAML.
    project = {
        "sources": [{"name": "a", "type": "dbt_platform", "webhook_secret": "{{ env_var('BENCH_KEY') }}"}],
        "connections": [
            {
                "name": "mode",
                "type": "mode",
                "workspace": mode["workspace"],
                "token": "{{ env_var('BENCH_TOKEN') }}",
                "secret": "{{ env_var('BENCH_SECRET') }}",
                "base_url": mode["url"],
                "limits": {"requests_per_second": 1000, "concurrency": 256},
            }
        ],
        "dashboards": dashboards,
    }
    (home / "downriver.yml").write_text(json.dumps(project))
    command = [DOWNRIVER, "serve", "--port", "0", "--project-dir", str(home)]
    environ = {"BENCH_KEY": KEY, "BENCH_TOKEN": mode["token"], "BENCH_SECRET": mode["secret"]}
    with process(command, home / "serve.log", awaited="/hooks/a", environ=environ) as child:
        url = child.first[child.first.index("http://") :].split("/hooks/")[0]
        until_ready(url)
        yield child.pid, url


def until_ready(url: str, seconds: float = 30) -> None:
    """Wait until /readyz answers 200. Raises RuntimeError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if call(url, "GET", "/readyz")[0] == 200:
            return
        time.sleep(0.01)
    raise RuntimeError(f"{url}/readyz did not answer 200 within {seconds} s")


def call(
    url: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """One request over a connection of its own: status and body."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def report(number: int) -> str:
    """The token of report `number`."""
    return f"{number:012x}"


def webhook(job: int, run: int) -> tuple[bytes, str]:
    """The body of a finished run's webhook (shape and size of the documented one), and its signature."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = {
        "jobId": str(job), "jobName": "Snowflake Project Job", "runId": str(run), "environmentId": "187998",
        "environmentName": "Deployment 1.4", "dbtVersion": "1.4.6", "projectName": "Snowflake 2",
        "projectId": "241251", "runStatus": "Success", "runStatusCode": 10, "runStatusMessage": "None",
        "runReason": "Kicked off from UI by analyst@example.com", "runStartedAt": stamp, "runFinishedAt": stamp,
    }  # fmt: skip
    event = {
        "accountId": 66847, "eventId": f"wev_{run:027d}", "timestamp": stamp, "eventType": "job.run.completed",
        "webhookId": "wsu_2QGRb6TLFTOlBXsWjL4kb0RHTWc", "webhookName": "bench", "data": data,
    }  # fmt: skip
    body = json.dumps(event, separators=(",", ":")).encode()
    return body, hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
