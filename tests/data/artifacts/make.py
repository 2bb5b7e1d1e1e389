"""Run a real dbt on examples/jaffle in the ways that matter, and keep its artifacts.

    python tests/data/artifacts/make.py .venv/bin/dbt [CASE ...]

See README.md beside this file for what each case is. Every case starts from a database of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scrub import scrub, small_manifest, write_gz

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

# case: the steps, each with its name, what breaks, and dbt's arguments. A step named None is run and not kept.
CASES: dict[str, list[tuple[str | None, dict[str, str], str]]] = {
    "success": [("build", {}, "build")],
    "failing_test": [("build", {"JAFFLE_BREAK": "test"}, "build")],
    "warning_test": [("build", {"JAFFLE_BREAK": "warn"}, "build")],
    "broken_model": [("build", {"JAFFLE_BREAK": "model"}, "build"), ("retry", {}, "retry")],
    "retry_after_test": [("build", {"JAFFLE_BREAK": "test"}, "build"), ("retry", {}, "retry")],
    "completed_after_test": [
        ("build", {"JAFFLE_BREAK": "test"}, "build"),
        ("build", {}, "build --select stg_payments+"),
    ],
    "docs_last": [("build", {"JAFFLE_BREAK": "model"}, "build"), ("docs", {}, "docs generate")],
    "run_then_test": [
        ("seed", {}, "seed"),
        ("run", {"JAFFLE_BREAK": "test"}, "run"),
        ("test", {}, "test"),
    ],
    "selected": [(None, {}, "build"), ("build", {}, "build --select tag:hourly+")],
    "nothing": [(None, {}, "build"), ("build", {}, "build --select tag:nobody")],
    "stale_sources": [
        ("freshness", {"JAFFLE_STALE_DAYS": "1"}, "source freshness"),
        ("build", {}, "build"),
    ],
    "fresh_sources": [("freshness", {}, "source freshness"), ("build", {}, "build")],
}


def main(dbt: str, *only: str) -> None:
    for case in only or CASES:
        steps = CASES[case]
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder) / "jaffle"
            shutil.copytree(ROOT / "examples/jaffle", project, ignore=shutil.ignore_patterns("target", "logs"))
            shutil.rmtree(HERE / case, ignore_errors=True)
            for number, (step, breaks, arguments) in enumerate(steps, start=1):
                _run(dbt, project, breaks, arguments)
                if step:
                    _keep(project, HERE / case / f"{number}-{step}")


def _run(dbt: str, project: Path, breaks: dict[str, str], arguments: str) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAFFLE_", "DBT_"))}
    command = [dbt, "--quiet", *arguments.split(), "--profiles-dir", "."]
    for name in ("run_results.json", "sources.json"):
        # `dbt retry` reads the results of the run before; every other command writes its own.
        if arguments != "retry":
            (project / "target" / name).unlink(missing_ok=True)
    done = subprocess.run(command, cwd=project, env={**clean, **breaks}, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _keep(project: Path, folder: Path) -> None:
    target = project / "target"
    write_gz(folder / "manifest.json.gz", small_manifest(target / "manifest.json", project))
    for name in ("run_results.json", "sources.json"):
        if (target / name).exists():
            kept = scrub(json.loads((target / name).read_text(encoding="utf-8")), project)
            if "args" in kept:
                kept["args"]["invocation_command"] = _plain(kept["args"]["invocation_command"])
            (folder / name).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _plain(command: str) -> str:
    """The command as a person would have typed it."""
    return command.replace(" --quiet", "")


if __name__ == "__main__":
    main(*sys.argv[1:])
