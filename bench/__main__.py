"""Every number of the service in one run: `python -m bench [--only acks|latency|drain|idle|start] [--repeat 5]`.

Medians with the smallest and the largest beside them; run it on an otherwise quiet machine. Exit code 1 when a
bench failed; the others are still run. `python -m bench.manifest` measures lineage.
"""

from __future__ import annotations

import argparse
import json
import sys

from bench import acks, drain, idle, latency
from bench.world import Row

BENCHES = {
    "drain": drain.measure,
    "latency": latency.measure,
    "acks": acks.measure,
    "idle": idle.measure,
    "start": idle.measure_start,
}


def main() -> int:
    """Run them; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The service's numbers.")
    parser.add_argument("--only", action="append", choices=sorted(BENCHES), help="just this one (may be repeated)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    rows: list[Row] = []
    failed = False
    for name in options.only or BENCHES:
        try:
            found = BENCHES[name](options.repeat)
        except (RuntimeError, TimeoutError, OSError) as error:
            print(f"{name}: failed: {error!r}", file=sys.stderr, flush=True)
            failed = True
            continue
        rows += found
        if options.output == "table":
            for row in found:
                item = row.as_json()
                numbers = f"{item['median']:10,.2f}  ({item['min']:,.2f} to {item['max']:,.2f})"
                print(f"{name:8} {row.what:44} {numbers} {row.unit}", flush=True)
    if options.output == "json":
        print(json.dumps([row.as_json() for row in rows], indent=2))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
