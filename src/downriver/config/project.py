"""Where the project is: the downriver.yml to read, and the directory its data lives in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from downriver.config.problems import path_text
from downriver.core.errors import ConfigError

FILE_NAMES: Final = ("downriver.yml", "downriver.yaml")
PROJECT_DIR: Final = "DOWNRIVER_PROJECT_DIR"
HOME: Final = "DOWNRIVER_HOME"
DEFAULT_HOME: Final = ".downriver"


def find_project(start: Path, explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The absolute path of the project's file.

    `explicit` (`--project-dir`) or else `DOWNRIVER_PROJECT_DIR` names its directory, or the file itself;
    otherwise it is looked for in `start` and every directory above. Raises ConfigError saying where it
    was looked for.
    """
    if explicit is not None:
        return _in(explicit, start, "--project-dir")
    named = environ.get(PROJECT_DIR, "").strip()
    if named:
        return _in(Path(named), start, PROJECT_DIR)
    start = start.absolute()
    for directory in (start, *start.parents):
        found = _file_in(directory)
        if found is not None:
            return found
    raise ConfigError(
        f"No {FILE_NAMES[0]} in {path_text(start)} or any directory above it. "
        f"Go to your project, name its directory with --project-dir or {PROJECT_DIR}, "
        "or start a project here with `downriver init`."
    )


def data_home(project_file: Path, environ: Mapping[str, str]) -> Path:
    """The directory for data: `DOWNRIVER_HOME` (relative to the project), else `.downriver/` beside the file."""
    named = environ.get(HOME, "").strip()
    directory = project_file.absolute().parent
    return directory / Path(named).expanduser() if named else directory / DEFAULT_HOME


def _in(place: Path, start: Path, said_by: str) -> Path:
    place = start.absolute() / place.expanduser()
    if place.is_file():
        return place
    found = _file_in(place)
    if found is not None:
        return found
    why = "there is no such directory" if not place.is_dir() else f"there is no {' or '.join(FILE_NAMES)} in it"
    raise ConfigError(f"{said_by} says {path_text(place)}, but {why}. Correct it, or run `downriver init` there.")


def _file_in(directory: Path) -> Path | None:
    """The project file of one directory. Raises ConfigError when both spellings are there."""
    found = [path for name in FILE_NAMES if (path := directory / name).is_file()]
    if len(found) > 1:
        raise ConfigError(f"{path_text(directory)} has both {' and '.join(FILE_NAMES)}: remove one.")
    return found[0] if found else None
