from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def recorded_report() -> dict[str, Any]:
    """A report as a real account answered it (tests/specs/mode/README.md)."""
    found: dict[str, Any] = json.loads(
        (Path(__file__).parents[1] / "specs" / "mode" / "recorded-report.json").read_text()
    )
    return found
