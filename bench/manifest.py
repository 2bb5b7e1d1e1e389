"""How long a first plan waits for its lineage, and how much memory that takes.

    python -m bench.manifest [--repeat 5] [--output table|json] [--only "70 MB" --only growth]

Every measurement is a process of its own, because peak memory belongs to a process: `json.loads` of the file,
dbt-artifacts-parser where it is installed, and Downriver's decode plus the upstream closure of every exposure.
Imports are outside the clock on all sides. Medians, with the smallest and largest beside them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.make_manifest import BIG, HUGE, Size, scaled, write_manifest

ROOT = Path(__file__).resolve().parent.parent
GROWTH = (1_000, 5_000, 20_000)
TARGETS = {
    "70 MB": "time <= 0.25x, peak <= 0.40x of json.loads",
    "200 MB": "<= 0.6 s and <= 350 MB where json.loads takes 2.1 s and 762 MB, so <= 0.29x and <= 0.46x",
}


@dataclass(frozen=True)
class Measured:
    what: str
    file: str
    megabytes: float
    seconds: float
    seconds_min: float
    seconds_max: float
    peak_mb: float
    runs: int
    extra: dict[str, float]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.manifest", description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=5, help="processes per measurement")
    parser.add_argument("--output", choices=["table", "json"], default="table")
    parser.add_argument("--only", action="append", choices=["70 MB", "200 MB", "growth"])
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        what, file = options.child
        print(json.dumps(_child(what, Path(file))))
        return 0
    results = run(options.repeat, options.only or ["70 MB", "200 MB", "growth"])
    if options.output == "json":
        print(json.dumps({"manifest": [asdict(result) for result in results]}, indent=2))
    else:
        _print_table(results)
    return 0


def run(repeat: int, only: list[str]) -> list[Measured]:
    """Make the manifests in a temporary directory and measure each in processes of its own."""
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-manifest-") as folder:
        for size in [size for size in (BIG, HUGE) if size.name in only]:
            file = _make(Path(folder), size)
            contenders = ["json.loads", "downriver"]
            if importlib.util.find_spec("dbt_artifacts_parser"):
                contenders.append("dbt-artifacts-parser")
            results += _measure(contenders, file, size, repeat)
            file.unlink()
        for models in GROWTH if "growth" in only else ():
            size = scaled(models)
            file = _make(Path(folder), size)
            results += _measure(["downriver"], file, size, repeat)
            file.unlink()
    return results


def _make(folder: Path, size: Size) -> Path:
    file = folder / "manifest.json"
    write_manifest(file, size)
    return file


def _measure(contenders: list[str], file: Path, size: Size, repeat: int) -> list[Measured]:
    """Contenders take turns, so that a slow minute of the machine hits them alike."""
    runs: dict[str, list[dict[str, float]]] = {what: [] for what in contenders}
    for _ in range(repeat):
        for what in contenders:
            command = [sys.executable, "-m", "bench.manifest", "--child", what, str(file)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            runs[what].append(json.loads(done.stdout))
    return [_summary(what, file, size, found) for what, found in runs.items()]


def _summary(what: str, file: Path, size: Size, found: list[dict[str, float]]) -> Measured:
    seconds = [one["seconds"] for one in found]
    names = [name for name in found[0] if name not in {"seconds", "peak_mb"}]
    return Measured(
        what=what,
        file=size.name,
        megabytes=round(file.stat().st_size / 1e6, 1),
        seconds=statistics.median(seconds),
        seconds_min=min(seconds),
        seconds_max=max(seconds),
        peak_mb=round(statistics.median(one["peak_mb"] for one in found), 1),
        runs=len(found),
        extra={name: statistics.median(one[name] for one in found) for name in names},
    )


def _child(what: str, file: Path) -> dict[str, float]:
    measured = {"json.loads": _json_loads, "downriver": _downriver, "dbt-artifacts-parser": _parser}[what](file)
    return {**measured, "peak_mb": _peak_mb()}


def _json_loads(file: Path) -> dict[str, float]:
    start = time.perf_counter()
    manifest = json.loads(file.read_bytes())
    return {"seconds": time.perf_counter() - start, "nodes": len(manifest["nodes"])}


def _parser(file: Path) -> dict[str, float]:
    from dbt_artifacts_parser import parser  # type: ignore[import-not-found,unused-ignore]

    start = time.perf_counter()
    parser.parse_manifest(manifest=json.loads(file.read_bytes()))
    return {"seconds": time.perf_counter() - start}


def _downriver(file: Path) -> dict[str, float]:
    from downriver.core.lineage import mask_of, upstream_masks
    from downriver.sources.artifacts import decode_manifest_file, from_slim, slim_bytes

    start = time.perf_counter()
    lineage = decode_manifest_file(file)
    decoded = time.perf_counter()
    masks = upstream_masks(lineage, [[exposure.unique_id] for exposure in lineage.exposures])
    end = time.perf_counter()
    built = mask_of(lineage, [node.unique_id for node in lineage.nodes if node.resource_type == "model"][::50])
    touched = sum(1 for mask in masks if mask & built)
    met = time.perf_counter()
    peak = _peak_mb()
    slim = slim_bytes(lineage)
    written = time.perf_counter()
    from_slim(slim)
    return {
        "seconds": end - start,
        "decode_s": decoded - start,
        "closures_s": end - decoded,
        "meet_s": met - end,
        "touched": touched,
        "from_slim_s": time.perf_counter() - written,
        "slim_mb": len(slim) / 1e6,
        "nodes": len(lineage.nodes),
        "exposures": len(lineage.exposures),
        "upstream_mean": sum(mask.bit_count() for mask in masks) / max(1, len(masks)),
        "peak_plan_mb": peak,
    }


def _peak_mb() -> float:
    """This process's own peak. Not getrusage: its value outlives exec and would count the parent's memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def _print_table(results: list[Measured]) -> None:
    row = "{:<11} {:<21} {:>7} {:>9} {:>19} {:>9} {:>13}"
    print(row.format("manifest", "what", "MB", "median s", "min-max s", "peak MB", "of json.loads"))
    base: dict[str, Measured] = {}
    for result in results:
        if result.what == "json.loads":
            base[result.file] = result
        against = base.get(result.file)
        share = f"{result.seconds / against.seconds:.2f}x {_peak(result) / against.peak_mb:.2f}x" if against else ""
        spread = f"{result.seconds_min:.3f}-{result.seconds_max:.3f}"
        median = f"{result.seconds:.3f}"
        print(row.format(result.file, result.what, result.megabytes, median, spread, f"{_peak(result):.0f}", share))
    for result in results:
        if result.what == "downriver":
            print(f"\n{result.file}: {_words(result.extra)}")
            if result.file in TARGETS:
                print(f"  target: {TARGETS[result.file]}")


def _peak(result: Measured) -> float:
    return result.extra.get("peak_plan_mb", result.peak_mb)


def _words(extra: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in extra.items())


if __name__ == "__main__":
    sys.exit(main())
