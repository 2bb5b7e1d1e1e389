"""The main job with real processes: a signed webhook in, exactly one Mode run out, whatever happens between."""

from __future__ import annotations

import resource
import signal
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

pytestmark = pytest.mark.slow

# A body captured from the dbt platform in May 2023 (621 bytes).
CAPTURED = (
    b'{"accountId":66847,"eventId":"wev_2QSUzWMSv40ow7s8n8TfVPVnYua","timestamp":"2023-05-29T07:52:18.06660617Z",'
    b'"eventType":"job.run.completed","webhookId":"wsu_2QGRb6TLFTOlBXsWjL4kb0RHTWc","webhookName":"Flask app",'
    b'"data":{"jobId":"278164","jobName":"Snowflake Project Job","runId":"155144666","environmentId":"187998",'
    b'"environmentName":"Deployment 1.4","dbtVersion":"1.4.6","projectName":"Snowflake 2","projectId":"241251",'
    b'"runStatus":"Success","runStatusCode":10,"runStatusMessage":"None",'
    b'"runReason":"Kicked off from UI by analyst@example.com","runStartedAt":"2023-05-29T07:51:56Z",'
    b'"runFinishedAt":"2023-05-29T07:52:15Z"}}'
)
WHOLE_LIFE = ["queued", "triggering", "running", "succeeded"]


def ok(answer):
    return 200 <= answer[0] < 300


def only_success(serve, sandbox):
    (row,) = serve.ended()
    assert row["state"] == "succeeded", row
    (run,) = sandbox.runs()
    assert row["ticket"]["id"] == run["run"]
    return row


def test_a_signed_event_becomes_one_run(project, sandbox):
    serve = project.serve()
    assert len(CAPTURED) == 621
    assert serve.send(CAPTURED, key="forged")[0] == 401
    assert ok(serve.send(CAPTURED, key="test-secret"))
    row = only_success(serve, sandbox)
    assert row["run_id"] == "155144666"
    assert row["attempts"] == 1
    assert project.steps() == WHOLE_LIFE
    assert serve.end() == 0, serve.log


@pytest.mark.parametrize("seconds", [0, 0.03])
def test_killed_soon_after_the_ack(project, sandbox, event, seconds):
    serve = project.serve()
    assert ok(serve.send(event()))
    time.sleep(seconds)
    serve.end(signal.SIGKILL)
    only_success(project.serve(), sandbox)


def test_killed_again_and_again_under_load(project, sandbox, event):
    bodies = [event(number) for number in range(24)]
    acked = set()
    with ThreadPoolExecutor(6) as pool:
        for patience in (0.1, 0.5):
            serve = project.serve()
            answers = pool.map(serve.send, bodies)
            time.sleep(patience)
            serve.end(signal.SIGKILL)
            acked |= {number for number, answer in enumerate(answers) if ok(answer)}
            kept = {name for (name,) in project.rows("SELECT event_id FROM event")}
            assert {f"wev_{number}" for number in acked} <= kept
        serve = project.serve()
        assert all(map(ok, pool.map(serve.send, bodies)))
    assert acked
    rows = serve.ended(24)
    assert Counter(row["run_id"] for row in rows) == {str(70_000 + number): 1 for number in range(24)}
    assert {row["state"] for row in rows} <= {"succeeded", "superseded"}
    assert max(rows, key=lambda row: row["wanted_at"])["state"] == "succeeded"
    # Every run at the stand-in belongs to one refresh: none was begun twice, none was lost sight of.
    assert sorted(row["ticket"]["id"] for row in rows if row["ticket"]) == sorted(r["run"] for r in sandbox.runs())


def test_killed_while_mode_runs(project, sandbox, event, until):
    sandbox.shape([[3, "enqueued"]])
    serve = project.serve()
    assert ok(serve.send(event()))
    until(lambda: [row["state"] for row in serve.refreshes()] == ["running"])
    serve.end(signal.SIGKILL)
    row = only_success(project.serve(), sandbox)
    assert row["attempts"] == 1
    assert [
        step for step, again in zip(project.steps(), [None, *project.steps()], strict=False) if step != again
    ] == (WHOLE_LIFE)


def test_killed_between_the_post_and_the_ticket(project, sandbox, event, until):
    sandbox.fault(kind="latency", method="POST", seconds=15, after_effect=True, times=1)
    sandbox.shape([[2, "enqueued"]])
    serve = project.serve()
    assert ok(serve.send(event()))
    until(sandbox.runs, what="the run in the stand-in")
    assert [row["state"] for row in serve.refreshes()] == ["triggering"]
    serve.end(signal.SIGKILL)
    only_success(project.serve(), sandbox)
    assert any("adopted" in note for (note,) in project.rows("SELECT note FROM history"))


def test_two_processes_on_one_file_do_not_double(project, sandbox, event):
    one, two = project.serve(), project.serve()
    sends = [(serve, event(number)) for number in range(30) for serve in (one, two, one)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda send: send[0].send(send[1]), sends))
    assert all(map(ok, answers)), answers
    rows = one.ended(30)
    assert Counter(row["run_id"] for row in rows) == {str(70_000 + number): 1 for number in range(30)}
    assert {row["state"] for row in rows} <= {"succeeded", "superseded"}
    tickets = [row["ticket"]["id"] for row in rows if row["ticket"]]
    assert sorted(tickets) == sorted(run["run"] for run in sandbox.runs())
    newest = max(rows, key=lambda row: row["wanted_at"])
    assert newest["state"] == "succeeded"
    assert project.rows("SELECT state, count(*) FROM event GROUP BY state") == [("done", 30)]


def test_a_database_held_by_another_process_is_no_ack(project, sandbox, event):
    serve = project.serve()
    with closing(sqlite3.connect(project.home / "downriver.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        status, answer = serve.send(event())
        other.execute("ROLLBACK")
    assert status == 503, answer
    assert ok(serve.send(event()))
    only_success(serve, sandbox)


def test_a_disk_that_takes_no_bytes_is_no_ack(project, sandbox, event):
    serve = project.serve()
    _soft, hard = resource.prlimit(serve.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(serve.popen.pid, resource.RLIMIT_FSIZE, (1, hard))
    status, answer = serve.send(event())
    resource.prlimit(serve.popen.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert status == 503, answer
    assert ok(serve.send(event()))
    only_success(serve, sandbox)


def test_fifty_deliveries_at_once_are_one_event(project, sandbox, event):
    serve = project.serve()
    gate = threading.Barrier(50)

    def send(_):
        gate.wait(10)
        return serve.send(event())

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))
    assert all(map(ok, answers)), answers
    only_success(serve, sandbox)
    assert project.rows("SELECT count(*) FROM event") == [(1,)]


@pytest.mark.parametrize("fault", [{"kind": "html"}, {"kind": "cut"}])
def test_a_mode_that_is_away_for_a_while(project, sandbox, event, fault):
    sandbox.fault(**fault, path="/api/*", times=2)
    serve = project.serve()
    assert ok(serve.send(event()))
    only_success(serve, sandbox)


def test_planted_secrets_show_nowhere(project, sandbox, event):
    sandbox.fault(kind="status", status=401, path="/api/*", method="POST", times=1)
    serve = project.serve()
    assert ok(serve.send(event()))
    assert serve.send(event(2), key="forged")[0] == 401
    serve.ended()
    shown = [repr(serve.get(path)) for path in ("events", "rejected", "refreshes")]
    shown += [repr(serve.get(f"refreshes/{row['id']}")) for row in serve.refreshes()]
    files = [path for path in project.home.rglob("*") if path.is_file()]
    assert any(path.name == "downriver.db" for path in files)
    kept = [path.read_bytes() for path in files]
    serve.end()
    kept += [path.read_bytes() for path in project.home.rglob("*") if path.is_file()]
    planted = [project.env[name] for name in ("TEST_WEBHOOK_KEY", "TEST_MODE_TOKEN", "TEST_MODE_SECRET")]
    for secret in planted:
        assert secret not in serve.log
        assert not any(secret in text for text in shown)
        assert not any(secret.encode() in raw for raw in kept)
