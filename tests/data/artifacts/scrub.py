"""Make dbt's artifacts small and free of the machine they were made on; used by the two makers of test data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

NOT_KEPT = {"macros", "docs", "disabled"}
"""Of the manifest: nine tenths of a small one, and nothing Downriver looks at."""


def scrub(value: Any, project: Path) -> Any:
    """The same JSON with the project's directory called /project."""
    return json.loads(json.dumps(value).replace(str(project), "/project"))


def small_manifest(path: Path, project: Path) -> dict[str, Any]:
    """The manifest at `path` without macros and docs, scrubbed."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    kept: dict[str, Any] = scrub({k: v for k, v in manifest.items() if k not in NOT_KEPT}, project)
    kept["metadata"].pop("user_id", None)
    return kept


def write_gz(path: Path, value: Any) -> None:
    """Compact JSON, gzipped without a time stamp, so that equal content gives equal bytes."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
