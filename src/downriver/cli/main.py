"""`downriver`: the verbs. Imports are late, so that `--help` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
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


secrets = typer.Typer(help="The vault: webhook keys and API tokens.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(secrets, name="secrets")

ProjectDir = Annotated[Path | None, typer.Option(help="Directory of downriver.yml.")]
Output = Annotated[str, typer.Option(help="`table` or `json`.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]


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


@secrets.command("set")
def secrets_set(name: str, project_dir: ProjectDir = None) -> None:
    """Store a secret; its value comes from a hidden prompt, or from standard input."""
    from pydantic import SecretStr

    from downriver.cli.verbs import set_secret

    value = typer.prompt(f"Value of {name}", hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    typer.echo(set_secret(project_dir, name, SecretStr(value.removesuffix("\n").removesuffix("\r"))))


@secrets.command("list")
def secrets_list(output: Output = "table", project_dir: ProjectDir = None) -> None:
    """List names, fingerprints and last uses; never a value."""
    from downriver.cli.verbs import list_secrets

    list_secrets(project_dir, as_json=_as_json(output))


@secrets.command("rm")
def secrets_rm(name: str, project_dir: ProjectDir = None) -> None:
    """Forget a secret."""
    from downriver.cli.verbs import remove_secret

    typer.echo(remove_secret(project_dir, name))


@secrets.command("rotate-key")
def secrets_rotate_key(project_dir: ProjectDir = None) -> None:
    """Encrypt the vault with a newly made key."""
    from downriver.cli.verbs import rotate_key

    typer.echo(rotate_key(project_dir))


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="Where to start the project.")] = Path()) -> None:
    """Write a commented downriver.yml to start from."""
    from downriver.cli.verbs import write_starter

    typer.echo(write_starter(directory))


@app.command()
def schema() -> None:
    """Print the JSON Schema of downriver.yml, for editors."""
    from downriver.cli.verbs import show_schema

    show_schema()


@app.command()
def check(project_dir: ProjectDir = None) -> None:
    """Check configuration, vault, database, every connection and every dashboard."""
    from downriver.cli import verbs

    raise typer.Exit(verbs.check(project_dir))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is any free one.")] = 8321,
    project_dir: ProjectDir = None,
) -> None:
    """Take webhooks and refresh dashboards, in one process, until Ctrl-C."""
    from downriver.cli import verbs

    verbs.serve(project_dir, host, port)


@app.command("send-test")
def send_test(
    url: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:8321",
    source: Annotated[str | None, typer.Option(help="Name of the source.")] = None,
    project_dir: ProjectDir = None,
) -> None:
    """Sign the documented sample event and send it."""
    from downriver.cli import verbs

    typer.echo(verbs.send_test(project_dir, source, url))


@app.command()
def events(
    rejected: Annotated[bool, typer.Option("--rejected", help="Deliveries that were refused, and why.")] = False,
    limit: Limit = 20,
    output: Output = "table",
    project_dir: ProjectDir = None,
) -> None:
    """List the newest events."""
    from downriver.cli.verbs import show_events

    show_events(project_dir, limit=limit, rejected=rejected, as_json=_as_json(output))


@app.command()
def refreshes(
    dashboard: Annotated[str | None, typer.Option(help="Only those of this dashboard.")] = None,
    limit: Limit = 20,
    output: Output = "table",
    project_dir: ProjectDir = None,
) -> None:
    """List the newest refreshes."""
    from downriver.cli.verbs import show_refreshes

    show_refreshes(project_dir, limit=limit, dashboard=dashboard, as_json=_as_json(output))


@app.command()
def refresh(
    dashboard: str,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it; exit 1 unless it succeeds.")] = False,
    project_dir: ProjectDir = None,
) -> None:
    """Refresh a dashboard now."""
    from downriver.cli import verbs

    raise typer.Exit(verbs.refresh(project_dir, dashboard, wait=wait))


@app.command()
def replay(event: str, project_dir: ProjectDir = None) -> None:
    """Work an event again; what it refreshed with success stays as it is."""
    from downriver.cli import verbs

    typer.echo(verbs.replay(project_dir, event))


def _as_json(output: str) -> bool:
    if output not in ("table", "json"):
        raise typer.BadParameter("is `table` or `json`", param_hint="--output")
    return output == "json"


def main() -> None:
    """The entry point: our own errors are sentences on standard error, exit code 1."""
    try:
        app()
    except DownriverError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
