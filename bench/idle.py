"""What `downriver serve` costs when nothing happens, and how long starting takes."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.world import DOWNRIVER, Row, sandbox, serve

SECONDS = 20.0


def measure(repeat: int) -> list[Row]:
    """CPU share of a core over 20 s and resident memory, one value per repeat, of one process."""
    cpu, memory = [], []
    with (
        tempfile.TemporaryDirectory(prefix="downriver-bench-") as folder,
        sandbox(Path(folder)) as known,
        serve(Path(folder) / "p", known["mode"]) as (pid, _),
    ):
        time.sleep(2)
        for _ in range(repeat):
            before, began = _cpu_seconds(pid), time.perf_counter()
            time.sleep(SECONDS)
            cpu.append((_cpu_seconds(pid) - before) / (time.perf_counter() - began) * 100)
            memory.append(_resident_mb(pid))
    return [
        Row("idle", f"CPU over {SECONDS:.0f} s", "% of a core", tuple(cpu)),
        Row("idle", "resident memory", "MB", tuple(memory)),
    ]


def measure_start(repeat: int) -> list[Row]:
    """Seconds of `downriver --help`, and from starting `serve` in a new home to the first 200 of /readyz."""
    helped, ready = [], []
    with tempfile.TemporaryDirectory(prefix="downriver-bench-") as folder, sandbox(Path(folder)) as known:
        for number in range(repeat):
            began = time.perf_counter()
            subprocess.run([DOWNRIVER, "--help"], check=True, stdout=subprocess.DEVNULL)
            helped.append(time.perf_counter() - began)
            began = time.perf_counter()
            with serve(Path(folder) / f"p{number}", known["mode"]):
                ready.append(time.perf_counter() - began)
    return [
        Row("start", "downriver --help", "s", tuple(helped)),
        Row("start", "serve until /readyz is 200", "s", tuple(ready)),
    ]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status has no VmRSS")
