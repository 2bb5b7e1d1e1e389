"""`downriver`: the verbs. Imports are late, so that `--help` is quick."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from downriver import __version__
from downriver.core.errors import DownriverError

app = typer.Typer(
    name="downriver",
    help="A dbt job finishes; every dashboard that shows its data is fresh, and says so.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"downriver {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    del version


@app.command()
def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Keep running, to look around, until Ctrl-C.")] = False,
) -> None:
    """Run the main job end to end against local stand-ins of dbt and Mode."""
    from downriver.cli.demo import run_demo

    raise typer.Exit(run_demo(stay=stay))


@app.command()
def sandbox(
    mode_port: Annotated[int, typer.Option(help="Port of Mode's stand-in.")] = 8331,
    dbt_port: Annotated[int, typer.Option(help="Port of the dbt platform's stand-in.")] = 8332,
) -> None:
    """Serve local stand-ins of the dbt platform and of Mode, with faults on demand, until Ctrl-C."""
    from downriver.sandbox import serve

    serve(mode_port=mode_port, dbt_port=dbt_port)


def main() -> None:
    """The entry point: our own errors are sentences on standard error, exit code 1."""
    try:
        app()
    except DownriverError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
