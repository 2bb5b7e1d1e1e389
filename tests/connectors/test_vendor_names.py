"""What is special about a BI tool stands in its connector and nowhere else in the product (design.md §3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import downriver

ROOT = Path(downriver.__file__).parent
AT_HOME = ("connectors", "sandbox")
"""Rooms where vendors are at home: the product's side and the stand-ins."""
KINDS = frozenset({".py", ".html", ".js", ".css", ".sql", ".mako", ".svg"})
"""Not .yml: `downriver init` writes an example that a person fills in."""

# Hosts, headers, field and path names by which vendor knowledge would betray itself. Plain words like a
# tool's name in a sentence are no knowledge.
VENDORS = {
    "Mode": r"mode\.com|modeanalytics|report_runs?\b|query_runs|DatasetReport|manual_run_disabled"
    r"|running_notebook|api/verify|hal\+json|web_external_url|rendered_source|executed_by",
    "Hex": r"hex\.tech|updatePublishedResults|useCachedSqlResults|hxt[pw]_|UNABLE_TO_ALLOCATE_KERNEL",
    "Power BI": r"powerbi\.com|analysis\.windows\.net|login\.microsoftonline|x-ms-[a-z]+-id|myorg\b",
    "Tableau": r"X-Tableau|online\.tableau|tsRequest|finishCode|personalAccessToken",
    "Superset": r"X-CSRFToken|warm_up_cache|cached_dttm|viz_error",
}
PATTERN = re.compile("|".join(f"(?:{pattern})" for pattern in VENDORS.values()), re.IGNORECASE)


def vendor_knowledge(root: Path) -> Iterator[str]:
    """`file:line: words` of everything that only a connector should know."""
    for file in sorted(root.rglob("*")):
        inside = file.relative_to(root)
        if file.suffix not in KINDS or inside.parts[0] in AT_HOME:
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            found = PATTERN.search(line)
            if found:
                yield f"{inside}:{number}: {found[0]}"


def test_no_vendor_knowledge_outside_the_connectors() -> None:
    assert list(vendor_knowledge(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("engine/drivers.py", 'url = "https://app.mode.com/api"'),
        ("web/pages.py", 'run["_links"]["web_external_url"]'),
        ("store/tables.py", 'Column("query_runs", Text)'),
        ("web/templates/page.html", '<a href="https://app.hex.tech/">'),
        ("cli/check.py", 'headers = {"X-Tableau-Auth": token}'),
    ],
)
def test_the_search_finds_what_it_is_for(tmp_path: Path, file: str, line: str) -> None:
    for place in (file, f"connectors/{Path(file).name}", f"sandbox/{Path(file).name}"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"# fine\n{line}\n")
    (found,) = vendor_knowledge(tmp_path)
    assert found.startswith(f"{file}:2: ")


def test_every_connectors_own_words_are_searched_for() -> None:
    """A pattern nobody matches would guard nothing: the connectors there are must trip it."""
    for file in (ROOT / "connectors").glob("*.py"):
        if file.stem == "mode":
            assert len(set(PATTERN.findall(file.read_text()))) >= 5
