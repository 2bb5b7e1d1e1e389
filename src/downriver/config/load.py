"""downriver.yml as a `Config`, or every mistake in it at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel

from downriver.config import typed
from downriver.config.document import Broken, ListNode, MapNode, Node, Report, is_null, parse, read
from downriver.config.model import (
    Config,
    ConnectionConfig,
    ConnectionKeys,
    ConnectorType,
    DashboardConfig,
    DashboardKeys,
    LimitsConfig,
    PollingConfig,
    RefreshOnKeys,
    SourceConfig,
    SourceKeys,
    SourceType,
    TopKeys,
)
from downriver.config.problems import ConfigProblems, Problem, key_path, listed, nearest, shown, suggestion
from downriver.config.project import data_home
from downriver.config.reading import Reader
from downriver.config.references import Resolver
from downriver.core.errors import ConfigError
from downriver.core.model import Rule

K = TypeVar("K", bound=BaseModel)
Kind = TypeVar("Kind", SourceType, ConnectorType)
Path_ = tuple[str | int, ...]

_SHORTEST_HIDDEN: Final = 4


def load(
    path: Path,
    *,
    source_types: Mapping[str, SourceType],
    connector_types: Mapping[str, ConnectorType],
    environ: Mapping[str, str],
    secrets: Callable[[str], str],
) -> Config:
    """Read and judge the file at `path`.

    `source_types` and `connector_types` are the kinds there are, by their word; a mapping may make its
    values when asked, and raise ConfigError for one that is broken. `secrets(name)` returns a secret or
    raises a VaultError; it is asked once for every name in the file.

    Raises ConfigProblems with all that is wrong.
    """
    report, warnings = Report(path.name), Report(path.name)
    reader = Reader(report, warnings, Resolver(environ, secrets))
    loading = _Loading(reader, source_types, connector_types)
    text = read(path, report)
    root = parse(text, report) if text is not None else None
    if root is not None:
        loading.top(root)
    hidden = {*reader.hidden, *reader.resolver.known_values()}
    if report.problems:
        raise ConfigProblems(path, _without(hidden, report.problems))
    return Config(
        path=path,
        home=data_home(path, environ),
        sources=tuple(loading.sources),
        connections=tuple(loading.connections),
        dashboards=tuple(loading.dashboards),
        warnings=tuple(sorted(_without(hidden, warnings.problems))),
    )


def _check_reserved(kind: str, model: type[BaseModel], own: type[BaseModel]) -> None:
    """A kind must not declare a key that every item has: it would never be asked about it."""
    taken = sorted(set(typed.fields(model)) & set(typed.fields(own)))
    if taken:
        raise ConfigError(f"the kind `{kind}` declares {listed(taken)}, which Downriver uses itself.")


def _without(hidden: Collection[str], problems: Iterable[Problem]) -> list[Problem]:
    """`problems` with every secret's value struck out, should a kind's own check have repeated it."""
    words = sorted((word for word in hidden if len(word) >= _SHORTEST_HIDDEN), key=len, reverse=True)

    def struck(text: str) -> str:
        for word in words:
            text = text.replace(word, "•••")
        return text

    return [
        replace(p, message=struck(p.message), remedy=struck(p.remedy), excerpt=struck(p.excerpt)) for p in problems
    ]


@dataclass(frozen=True, slots=True)
class _Item:
    """One item of a list: its node without common keys' mistakes, the name and kind it seems to have."""

    node: MapNode
    path: Path_
    name: str | None


@dataclass(slots=True)
class _Loading:
    """The walk through one file. The lists fill as items prove right."""

    reader: Reader
    source_types: Mapping[str, SourceType]
    connector_types: Mapping[str, ConnectorType]
    sources: list[SourceConfig] = field(default_factory=list)
    connections: list[ConnectionConfig] = field(default_factory=list)
    dashboards: list[DashboardConfig] = field(default_factory=list)
    source_names: list[str] = field(default_factory=list)
    connection_kinds: dict[str, ConnectorType | None] = field(default_factory=dict)
    """Every connection that is named, also those with mistakes; None when its kind is unknown."""

    def top(self, root: Node) -> None:
        """The whole file."""
        if is_null(root):
            message, remedy = "the file is empty.", "`downriver init` writes one to start from."
            self.reader.report.add((1, 1), "", message, remedy)
        elif not isinstance(root, MapNode):
            if not isinstance(root, Broken):
                keys = listed(TopKeys.model_fields)
                self.reader.report.add(root, "", f"expected keys ({keys}) at the top of the file.", "")
        else:
            root = self.reader.keys(root, TopKeys.model_fields, ())
            version = tuple(entry for entry in root.entries if entry.key == "version")
            self.reader.model(TopKeys, replace(root, entries=version), ())
            sources = self._items(root.get("sources"), "sources")
            self.source_names = [item.name for item in sources if item.name is not None]
            for item in sources:
                self._source(item)
            for item in self._items(root.get("connections"), "connections"):
                self._connection(item)
            for item in self._items(root.get("dashboards"), "dashboards"):
                self._dashboard(item)

    def _items(self, node: Node | None, key: str) -> list[_Item]:
        """The mappings of a list, each name told and seen once."""
        if node is None or is_null(node) or isinstance(node, Broken):
            return []
        if not isinstance(node, ListNode):
            self.reader.report.add(node, key, "expected a list.", "Begin each item with `- name: …`.")
            return []
        found: list[_Item] = []
        lines: dict[str, int] = {}
        for index, item in enumerate(node.items):
            path = (key, index)
            if not isinstance(item, MapNode):
                if not isinstance(item, Broken):
                    message = "expected a mapping, beginning with `- name: …`."
                    self.reader.report.add(item, key_path(path), message)
                continue
            at = item.get("name")
            name = self.reader.peek(at)
            if name is not None and at is not None:
                if name in lines:
                    message = f"a second `{shown(name)}`: the first begins on line {lines[name]}."
                    self.reader.report.add(at, key_path((*path, "name")), message, "Names are given once.")
                lines.setdefault(name, item.line)
            found.append(_Item(item, path, name))
        return found

    def _source(self, item: _Item) -> None:
        kind = self._kind(item, self.source_types, SourceKeys)
        keys, options = self._split(item, SourceKeys, kind.config if kind else None)
        if keys is not None and options is not None:
            self.sources.append(SourceConfig(keys.name, keys.type, options, item.node.line))

    def _connection(self, item: _Item) -> None:
        kind = self._kind(item, self.connector_types, ConnectionKeys)
        if item.name is not None:
            self.connection_kinds.setdefault(item.name, kind)
        keys, options = self._split(item, ConnectionKeys, kind.config if kind else None)
        if keys is None or options is None:
            return
        self.connections.append(
            ConnectionConfig(
                name=keys.name,
                type=keys.type,
                options=options,
                line=item.node.line,
                timeout=keys.timeout,
                limits=LimitsConfig(keys.limits.requests_per_second, keys.limits.concurrency),
                polling=PollingConfig(keys.polling.first, keys.polling.max),
            )
        )

    def _dashboard(self, item: _Item) -> None:
        misspelt = next((e for e in item.node.entries if nearest(e.key, ["connection"]) is not None), None)
        said = item.node.get("connection") or (misspelt.value if misspelt else None)
        connection = self.reader.peek(said)
        if connection is not None and connection not in self.connection_kinds and said is not None:
            remedy = suggestion(connection, self.connection_kinds, "There are") or "Declare it under `connections`."
            path = key_path((*item.path, "connection"))
            self.reader.report.add(said, path, f"there is no connection `{shown(connection)}`.", remedy)
            connection = nearest(connection, self.connection_kinds)
        kind = self.connection_kinds.get(connection) if connection is not None else None
        keys, options = self._split(item, DashboardKeys, kind.asset if kind else None)
        rule = self._rule(item, keys.refresh_on) if keys is not None and keys.refresh_on is not None else None
        via = next((one for one in self.connections if one.name == connection), None)
        if keys is None or options is None or kind is None or via is None:
            return
        try:
            assets = kind.assets(via.name, via.options, options)
        except ValueError as error:
            self._complain_of_assets(item, str(error))
            return
        if not assets:
            self._complain_of_assets(item, "this names nothing that could be refreshed.")
        self.dashboards.append(
            DashboardConfig(keys.name, keys.connection, options, assets, item.node.line, rule, keys.title, keys.owner)
        )

    def _complain_of_assets(self, item: _Item, message: str) -> None:
        """Said at the first of the dashboard's asset keys."""
        own = typed.fields(DashboardKeys)
        first = next((entry for entry in item.node.entries if entry.key not in own), None)
        path = (*item.path, first.key) if first else item.path
        self.reader.report.add(first.value if first else item.node, key_path(path), message)

    def _kind(self, item: _Item, kinds: Mapping[str, Kind], own: type[BaseModel]) -> Kind | None:
        """The kind an item has; for a misspelt one, after reporting it, the one that was meant."""
        said = item.node.get("type")
        word = self.reader.peek(said)
        if said is None or word is None:
            return None
        path = key_path((*item.path, "type"))
        meant: str | None = word
        if word not in kinds:
            remedy = suggestion(word, kinds, "There are")
            self.reader.report.add(said, path, f"there is no type `{shown(word)}`.", remedy)
            meant = nearest(word, kinds)
        if meant is None:
            return None
        try:
            kind = kinds[meant]
            _check_reserved(meant, kind.config, own)
            if asset := getattr(kind, "asset", None):
                _check_reserved(meant, asset, DashboardKeys)
        except ConfigError as error:
            self.reader.report.add(said, path, str(error))
            return None
        return kind

    def _split(self, item: _Item, own: type[K], rest: type[BaseModel] | None) -> tuple[K | None, BaseModel | None]:
        """An item as its common keys and its kind's. Without a kind, the common keys alone are judged."""
        own_keys = typed.fields(own)
        node = item.node
        if rest is not None:
            if typed.known_keys(rest) is not None:
                node = self.reader.keys(node, [*own_keys, *typed.fields(rest)], item.path)
        else:
            node = self.reader.keys(node, self._all_keys(own), item.path)
        owner = item.name or ""
        common = replace(node, entries=tuple(e for e in node.entries if e.key in own_keys))
        keys = self.reader.model(own, common, item.path, owner=owner)
        if rest is None:
            return keys, None
        others = replace(node, entries=tuple(e for e in node.entries if e.key not in own_keys))
        return keys, self.reader.model(rest, others, item.path, owner=owner)

    def _all_keys(self, own: type[BaseModel]) -> set[str]:
        """Every key that an item whose kind is not known might have."""
        keys = set(typed.fields(own))
        if own is SourceKeys:
            return keys.union(*(typed.fields(kind.config) for kind in _usable(self.source_types)))
        usable = _usable(self.connector_types)
        return keys.union(*(typed.fields(k.config if own is ConnectionKeys else k.asset) for k in usable))

    def _rule(self, item: _Item, keys: RefreshOnKeys) -> Rule | None:
        node = item.node.get("refresh_on")
        source_node = node.get("source") if isinstance(node, MapNode) else None
        at = source_node or node or item.node
        jobs = (keys.jobs,) if isinstance(keys.jobs, str) else tuple(keys.jobs)
        path = key_path((*item.path, "refresh_on", "source"))
        names = self.source_names
        if keys.source is None:
            if len(set(names)) == 1:
                return Rule(names[0], jobs)
            if names:
                message = "`source` is missing, and there is more than one."
                self.reader.report.add(at, path, message, f"Name one of {listed(names)}.")
            else:
                self.reader.report.add(at, path, "there is no source to listen to.", "Declare one under `sources`.")
            return None
        if keys.source in names:
            return Rule(keys.source, jobs)
        remedy = suggestion(keys.source, names, "There are") or "Declare it under `sources`."
        self.reader.report.add(at, path, f"there is no source `{shown(keys.source)}`.", remedy)
        return None


def _usable(kinds: Mapping[str, Kind]) -> list[Kind]:
    """Every kind that can be had."""
    found: list[Kind] = []
    for word in kinds:
        with suppress(ConfigError):
            found.append(kinds[word])
    return found
