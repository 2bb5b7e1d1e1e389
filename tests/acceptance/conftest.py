"""A project on disk, the sandbox and `downriver serve` as real processes, and a plain HTTP client."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

REPORT = "9d2da37fa91e"
TOKEN = "b0a7c0ffee42"
SECRET = "planted-mode-secret-7e1f"
KEY = "planted-webhook-key-3c9a"
CONFIG = """\
sources:
  - name: analytics
    type: dbt_platform
    webhook_secret: ["{{ env_var('TEST_WEBHOOK_KEY') }}", test-secret]
connections:
  - name: mode
    type: mode
    workspace: acme
    token: "{{ env_var('TEST_MODE_TOKEN') }}"
    secret: "{{ env_var('TEST_MODE_SECRET') }}"
    base_url: %s
    polling: {first: 100ms, max: 500ms}
    limits: {requests_per_second: 500}
dashboards:
  - name: weekly_revenue
    connection: mode
    report: 9d2da37fa91e
    refresh_on: {source: analytics, jobs: [278164]}
"""


def until(question, seconds=30.0, what="it"):
    """Ask again and again until the answer is true, and return the answer."""
    end = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.03)
    return answer


def call(url, method="GET", body=None, headers=None, seconds=20.0):
    """One request: (status, body). Status 0 when the connection broke."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)) as connection:
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error).encode()


class Process:
    """A child process whose output is read as it comes (by a pipe, so that no file limit touches it)."""

    def __init__(self, argv, env):
        self.popen = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.append(line.decode(errors="replace"))

    @property
    def log(self):
        return "".join(self.lines)

    def first(self, start):
        """The first line that begins so."""

        def look():
            assert self.popen.poll() is None, self.log
            return next((line for line in list(self.lines) if line.startswith(start)), None)

        return until(look, what=f"a line that begins with {start}")

    def end(self, how=signal.SIGTERM):
        if self.popen.poll() is None:
            self.popen.send_signal(how)
        code = self.popen.wait(20)
        self._reader.join(5)
        self.popen.stdout.close()
        return code


class Sandbox(Process):
    """`python -m downriver.sandbox`, with Mode's stand-in under our planted secret."""

    def __init__(self):
        settings = {"mode": {"credentials": [{"token": TOKEN, "secret": SECRET}], "rate_limit": None}}
        argv = [sys.executable, "-m", "downriver.sandbox", "--settings", json.dumps(settings)]
        super().__init__(argv, dict(os.environ))
        about = json.loads(self.first("{"))
        self.mode_url, self.control = about["mode"]["url"], about["control"]
        self.shape([[0.3, "enqueued"]])

    def ask(self, method, path, body=None):
        status, answer = call(f"{self.control}/mode/{path}", method, None if body is None else json.dumps(body))
        assert 200 <= status < 300, answer
        return json.loads(answer)

    def shape(self, phases):
        self.ask("PUT", f"reports/{REPORT}", {"token": REPORT, "shape": {"phases": phases}})

    def fault(self, **fault):
        self.ask("POST", "faults", fault)

    def runs(self):
        return self.ask("GET", f"runs?report={REPORT}")


class Serve(Process):
    """`downriver serve`, ready."""

    def __init__(self, project):
        script = Path(sys.executable).with_name("downriver")
        super().__init__([str(script), "serve", "--port", "0", "--project-dir", str(project.path)], project.env)
        self.url = self.first("http").split("/hooks/")[0]
        until(lambda: call(f"{self.url}/readyz")[0] == 200, what="/readyz")

    def send(self, body, key=KEY):
        signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
        headers = {"Authorization": signature, "Content-Type": "application/json"}
        return call(f"{self.url}/hooks/analytics", "POST", body, headers)

    def get(self, path):
        status, answer = call(f"{self.url}/api/v1/{path}")
        assert status == 200, answer
        return json.loads(answer)

    def refreshes(self):
        return self.get("refreshes?limit=200")["refreshes"]

    def ended(self, count=1, seconds=40.0):
        """The refreshes, once there are `count` and none is at work."""

        def look():
            rows = self.refreshes()
            return rows if len(rows) >= count and all(row["ended_at"] for row in rows) else None

        return until(look, seconds, "the end of every refresh")


class Project:
    """A directory with downriver.yml, and the processes started on it."""

    def __init__(self, path, sandbox):
        self.path, self.sandbox = path, sandbox
        (path / "downriver.yml").write_text(CONFIG % sandbox.mode_url)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOWNRIVER_")}
        secrets = {"TEST_WEBHOOK_KEY": KEY, "TEST_MODE_TOKEN": TOKEN, "TEST_MODE_SECRET": SECRET}
        self.env = kept | secrets
        self.started: list[Process] = []

    @property
    def home(self):
        return self.path / ".downriver"

    def serve(self):
        serve = Serve(self)
        self.started.append(serve)
        return serve

    def rows(self, query):
        with closing(sqlite3.connect(self.home / "downriver.db")) as conn:
            return conn.execute(query).fetchall()

    def steps(self):
        return [row[0] for row in self.rows("SELECT to_state FROM history ORDER BY seq")]


@pytest.fixture
def sandbox():
    process = Sandbox()
    yield process
    process.end()


@pytest.fixture
def project(tmp_path, sandbox):
    one = Project(tmp_path, sandbox)
    yield one
    for process in one.started:
        process.end(signal.SIGKILL)


def event(number=1, **changes):
    """The body of a finished, successful run."""
    run = {
        "jobId": "278164",
        "jobName": "Daily Job",
        "runId": str(70_000 + number),
        "environmentId": "1",
        "environmentName": "Production",
        "dbtVersion": "1.11.0",
        "projectName": "acme",
        "projectId": "2",
        "runStatus": "Success",
        "runStatusCode": 10,
        "runStatusMessage": "None",
        "runReason": "scheduled",
        "runStartedAt": "2026-05-29T07:51:56Z",
        "runFinishedAt": f"2026-05-29T08:{number % 60:02d}:15Z",
    } | changes
    whole = {
        "accountId": 66847,
        "eventId": f"wev_{number}",
        "timestamp": "2026-05-29T09:52:18.06660617Z",
        "eventType": "job.run.completed",
        "webhookId": "wsu_1",
        "webhookName": "downriver",
        "data": run,
    }
    return json.dumps(whole).encode()


@pytest.fixture(name="event")
def _event():
    return event


@pytest.fixture(name="until")
def _until():
    return until
