"""`python -m downriver.sandbox`: the sandbox as a process of its own, for tests, benches and rehearsals.

Prints one line of JSON when every port answers: `{"control": …, "mode": {…}, "dbt": {…}}`. Ends on SIGINT or
SIGTERM with exit code 0.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from downriver.sandbox.server import Sandbox, SandboxSettings, serve


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m downriver.sandbox", description="Local stand-ins with faults.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    parser.add_argument("--mode-port", type=int, default=0, help="port of the Mode stand-in (default: any free one)")
    parser.add_argument("--dbt-port", type=int, default=0, help="port of the dbt platform stand-in")
    parser.add_argument("--instant", action="store_true", help="runs end at once, every report exists, no limits")
    parser.add_argument("--no-limits", action="store_true", help="no rate limits")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="SandboxSettings as JSON")
    parser.add_argument("--human", action="store_true", help="print a page for a person instead of JSON")
    options = parser.parse_args(argv)
    try:
        settings = msgspec.json.decode(options.settings, type=SandboxSettings)
    except msgspec.DecodeError as error:
        parser.error(f"--settings: {error}")
    if options.instant:
        settings = settings.instant()
    if options.no_limits:
        settings = settings.unlimited()

    def announce(sandbox: Sandbox) -> None:
        line = sandbox.banner() if options.human else msgspec.json.encode(sandbox.describe()).decode()
        print(line, flush=True)  # noqa: T201 - the command line

    try:
        serve(
            settings,
            host=options.host,
            mode_port=options.mode_port,
            dbt_port=options.dbt_port,
            announce=announce,
        )
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
