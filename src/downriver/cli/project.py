"""From where the user stands to an open project: file, home, store, vault, configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from downriver.app import Link, Parts, now
from downriver.config.load import load
from downriver.config.model import Config, ConnectionConfig
from downriver.config.project import data_home, find_project
from downriver.connectors.base import ConnectorSpec
from downriver.connectors.registry import discover
from downriver.core.errors import NotFound
from downriver.core.model import Dashboard
from downriver.engine.policy import Policy
from downriver.sources.registry import SOURCES
from downriver.store.db import Store
from downriver.vault import Vault


@dataclass(frozen=True, slots=True)
class Project:
    """A project found on disk, its configuration not yet read. `store` is open; `vault` opens on demand."""

    path: Path
    home: Path
    store: Store

    def vault(self) -> Vault:
        """The vault. Raises VaultError when its key is lost or wrong."""
        return Vault.open(self.store, self.home, os.environ, now)

    def config(self) -> Config:
        """downriver.yml, read with the vault at hand. Raises ConfigProblems."""
        vault = self.vault()
        registry = discover()
        config = load(
            self.path,
            source_types=SOURCES,
            connector_types={kind: registry.spec(kind) for kind in registry.kinds},
            environ=os.environ,
            secrets=lambda name: vault.get(name).get_secret_value(),
        )
        vault.note_use()
        return config


def database_url(home: Path) -> str:
    """The database's address: `DOWNRIVER_DATABASE_URL`, or a SQLite file in the home."""
    return os.environ.get("DOWNRIVER_DATABASE_URL") or f"sqlite:///{home / 'downriver.db'}"


@contextmanager
def opened(project_dir: Path | None) -> Iterator[Project]:
    """The project of `--project-dir`, of the environment, or of the current directory upwards."""
    path = find_project(Path.cwd(), project_dir, os.environ)
    home = data_home(path, os.environ)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = Store.open(database_url(home))
    try:
        yield Project(path, home, store)
    finally:
        store.close()


def parts_of(config: Config) -> Parts:
    """What the service is built from."""
    registry = discover()
    token = os.environ.get("DOWNRIVER_API_TOKEN")
    return Parts(
        home=config.home,
        sources={item.name: SOURCES[item.type].build(item.name, item.options) for item in config.sources},
        links={item.name: link_of(item, registry.spec(item.type)) for item in config.connections},
        dashboards=config.as_dashboards(),
        database_url=database_url(config.home),
        api_token=SecretStr(token) if token else None,
    )


def link_of(item: ConnectionConfig, spec: ConnectorSpec) -> Link:
    """A connection with the connector's own limits where downriver.yml says nothing."""
    policy = replace(
        Policy(),
        timeout=item.timeout,
        first_look=item.polling.first,
        max_look=item.polling.max,
        concurrency=item.limits.concurrency or spec.limits.concurrency,
    )
    return Link(spec, item.options, policy, item.limits.requests_per_second or spec.limits.requests_per_second)


def dashboard_named(config: Config, name: str) -> Dashboard:
    """The dashboard of that name. Raises NotFound listing those there are."""
    for item in config.as_dashboards():
        if item.name == name:
            return item
    known = ", ".join(item.name for item in config.dashboards) or "none yet"
    raise NotFound(f"There is no dashboard `{name}` in {config.path.name}. There are: {known}.")
