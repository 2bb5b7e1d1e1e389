"""The downriver.yml that `downriver init` writes. Its text is starter.yml, beside this file."""

from __future__ import annotations

from importlib import resources


def starter_text() -> str:
    """A commented downriver.yml that loads as it is, once its three secrets are in the vault."""
    return resources.files("downriver.config").joinpath("starter.yml").read_text(encoding="utf-8")
