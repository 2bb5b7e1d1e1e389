"""From the webhook's first byte to Mode having the POST, on an idle service: 100 webhooks one by one.

Beside `downriver serve`: the recipe as a FastAPI script, and Debian's `webhook` program where it is installed.
The arrival is what the stand-in's request log says (same machine, same clock); every webhook asks for a report
of its own, so each arrival is matched to its webhook by the report's token.
"""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.world import KEY, REPORTS, ROOT, Row, call, percentile, process, report, sandbox, serve, webhook

_runs = itertools.count(70_437_497_968_840)


def measure(repeat: int) -> list[Row]:
    """p50 and p99 in milliseconds per contender, one value per repeat; the contenders take turns."""
    taken: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="downriver-bench-") as folder, ExitStack() as stack:
        home = Path(folder)
        mode = stack.enter_context(sandbox(home))["mode"]
        contenders = {
            "downriver serve": (stack.enter_context(serve(home / "p", mode))[1], 0.05),
            "recipe (FastAPI, not durable)": (stack.enter_context(_recipe(home, mode)), 0.05),
        }
        if shutil.which("webhook"):
            # It answers before its script has run: a longer pause, so that it is idle too.
            contenders["Debian webhook + script"] = (stack.enter_context(_debian(home, mode)), 0.2)
        else:
            print("latency: Debian's `webhook` program is not installed and is left out.", file=sys.stderr)
        for url, _ in contenders.values():
            _send(url, 1)
        time.sleep(3)
        for _ in range(repeat):
            for name, (url, pause) in contenders.items():
                taken.setdefault(name, []).append(_round(url, mode["url"], pause))
    return [
        Row("latency", f"{name}, p{share * 100:.0f}", "ms", tuple(percentile(values, share) for values in rounds))
        for name, rounds in taken.items()
        for share in (0.5, 0.99)
    ]


def _round(url: str, mode_url: str, pause: float) -> list[float]:
    sent: dict[str, float] = {}
    for number in range(1, REPORTS + 1):
        sent[report(number)] = _send(url, number)
        time.sleep(pause)
    time.sleep(3)  # the last looks are over, the service idle again
    began = min(sent.values())
    seen = json.loads(call(mode_url, "GET", "/_sandbox/mode/requests?limit=3000")[1])["recent"]
    posts = [item for item in seen if item["method"] == "POST" and item["at"] >= began]
    arrived = {item["path"].split("/")[-2]: item["at"] for item in posts}
    if len(posts) != REPORTS or arrived.keys() != sent.keys():
        raise RuntimeError(f"{url}: {len(posts)} triggers of {len(arrived)} reports for {REPORTS} webhooks")
    return [(arrived[token] - at) * 1000 for token, at in sent.items()]


def _send(url: str, job: int) -> float:
    body, signature = webhook(job, next(_runs))
    at = time.time()
    status, answer = call(
        url, "POST", "/hooks/a", body, {"Authorization": signature, "Content-Type": "application/json"}
    )
    if status != 200:
        raise RuntimeError(f"{url} answered {status}: {answer[:200]!r}")
    return at


def _environ(mode: dict[str, Any]) -> dict[str, str]:
    return {f"MODE_{name.upper()}": str(mode[name]) for name in ("url", "workspace", "token", "secret")}


@contextmanager
def _recipe(home: Path, mode: dict[str, Any]) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.rivals", "recipe"]
    with process(command, home / "recipe.log", awaited="at http", environ=_environ(mode)) as child:
        yield child.first.removeprefix("at ")


@contextmanager
def _debian(home: Path, mode: dict[str, Any]) -> Iterator[str]:
    signature = {"source": "header", "name": "Authorization"}
    hook = {
        "id": "a",
        "execute-command": sys.executable,
        "command-working-directory": str(ROOT),
        "pass-arguments-to-command": [
            *({"source": "string", "name": word} for word in ("-m", "bench.rivals", "once")),
            {"source": "entire-payload"},
        ],
        "trigger-rule": {"match": {"type": "payload-hmac-sha256", "secret": KEY, "parameter": signature}},
        "trigger-rule-mismatch-http-response-code": 403,
    }
    hooks = home / "hooks.json"
    hooks.write_text(json.dumps([hook]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        "webhook",
        "-hooks",
        str(hooks),
        "-ip",
        "127.0.0.1",
        "-port",
        str(port),
        "-urlprefix",
        "hooks",
        "-verbose",
    ]
    with process(command, home / "webhook.log", awaited="serving hooks", environ=_environ(mode)):
        time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
