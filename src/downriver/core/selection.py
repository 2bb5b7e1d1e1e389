"""The part of dbt's node selection syntax that rules use, by our own small grammar (facts/dbt.md §3.5).

::

    selector      = intersection { blank intersection }        union; a list of texts is a union too
    intersection  = term { "," term }
    term          = [ "@" ] [ [ digits ] "+" ] [ method ":" ] value [ "+" [ digits ] ]

Without a method a value with a `/` is a path, one that ends in .sql, .py or .csv a file, any other a name:
the node's own name, or the start of its fully qualified name (`marts.revenue`, `jaffle.marts`). Names, tags,
groups, packages, sources and files may hold `*`, `?` and `[…]`. Matching follows dbt 1.11
(`dbt/graph/selector_methods.py`), checked against `dbt ls --indirect-selection empty`: tests are selected when
they match or lie below (`m+`), but not because a node they test is selected.

`path:` is compared with the paths in the manifest, because there is no project directory here: a directory that holds
no node of the project does not exist for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import translate
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from downriver.core.errors import BadInput
from downriver.core.lineage import Lineage, LineageNode, config_of, ids_of, mask_at, reach

RESOURCE_TYPES = frozenset(
    {"analysis", "exposure", "function", "metric", "model", "operation", "saved_query", "seed"}
    | {"semantic_model", "snapshot", "source", "test", "unit_test"}
)
_NOT_HERE = {
    "access": "it needs parts of the manifest Downriver does not keep",
    "result": "plans look at the run's results by themselves",
    "selector": "selectors of selectors.yml live in the project; write the terms out",
    "source_status": "use the gate `sources: fresh`",
    "state": "it compares two versions of a project, which has no meaning for a finished run",
    "test_name": "tests follow the nodes they test; use a name or tag: instead",
    "test_type": "tests follow the nodes they test; use resource_type:unit_test or resource_type:test",
    "version": "name the version instead, as in customers.v2",
}
_TERM = re.compile(r"(?P<at>@)?(?:(?P<up>\d*)\+)?(?P<rest>.*)", re.DOTALL)
_TAIL = re.compile(r"\+(?P<down>\d*)\Z")
_METHOD = re.compile(r"[\w.\-]+(?=:)")
_WILD = re.compile(r"[*?\[\]]")


class SelectionError(BadInput):
    """A selector cannot be read. `str()` has the text with a caret under the character at `position` (0-based)."""

    def __init__(self, problem: str, text: str, position: int, suggestion: str | None = None) -> None:
        hint = f"; did you mean `{suggestion}`?" if suggestion else ""
        super().__init__(f"selector cannot be read: {problem}{hint}\n  {text}\n  {' ' * position}^")
        self.problem = problem
        self.text = text
        self.position = position
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True)
class Term:
    """One term: `@` is `childrens_parents`, `2+` before it `parents` with `parents_depth` 2, after it `children`.

    A depth of None means any number of steps. `position` is where the term begins in its text (0-based).
    """

    text: str
    method: str
    value: str
    arguments: tuple[str, ...] = ()
    childrens_parents: bool = False
    parents: bool = False
    parents_depth: int | None = None
    children: bool = False
    children_depth: int | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class Selector:
    """A union of intersections of terms, ready to be used on any lineage. `str()` gives the text back."""

    union: tuple[tuple[Term, ...], ...]

    def __str__(self) -> str:
        return " ".join(",".join(term.text for term in terms) for terms in self.union)

    @property
    def terms(self) -> tuple[Term, ...]:
        """All terms, in the order they were written."""
        return tuple(term for terms in self.union for term in terms)


@dataclass(frozen=True, slots=True)
class TermCount:
    """How many nodes one term matches by itself, and how many with its `+` or `@`. Zero is worth a warning."""

    term: Term
    matched: int
    selected: int


def parse(text: str | Sequence[str]) -> Selector:
    """Read a selector, or a list of them (their union). Raises SelectionError with the place of the mistake."""
    texts = [text] if isinstance(text, str) else list(text)
    union = [terms for one in texts for terms in _parse_union(one)]
    if not union:
        raise SelectionError("it is empty", texts[0] if texts else "", 0)
    return Selector(tuple(union))


def select(lineage: Lineage, selector: Selector, exclude: Selector | None = None) -> frozenset[str]:
    """The ids of the nodes that `selector` selects and `exclude` does not."""
    return frozenset(ids_of(lineage, select_mask(lineage, selector, exclude)))


def select_mask(lineage: Lineage, selector: Selector, exclude: Selector | None = None) -> int:
    """The same as a bitset (see `core.lineage`). Remembered: every plan asks the same of a lineage."""
    kept: dict[tuple[Selector, Selector | None], int] = lineage.memo.setdefault("selections", {})
    key = (selector, exclude)
    if key not in kept:
        chosen = _select(lineage, selector)
        if exclude is not None:
            chosen -= _select(lineage, exclude)
        kept[key] = mask_at(chosen)
    return kept[key]


def count_matches(lineage: Lineage, selector: Selector) -> tuple[TermCount, ...]:
    """For every term, in written order, how much it found: to tell which one matches nothing."""
    return tuple(
        TermCount(term, len(_matches(lineage, term)), len(_select_term(lineage, term))) for term in selector.terms
    )


# ------------------------------------------------------------------------------------------ reading


def _parse_union(text: str) -> Iterator[tuple[Term, ...]]:
    for word in re.finditer(r"\S+", text):
        terms = []
        at = word.start()
        for part in word.group().split(","):
            if not part:
                raise SelectionError(
                    "a comma stands between two terms, without blanks (both must hold)", text, max(at - 1, 0)
                )
            terms.append(_parse_term(part, text, at))
            at += len(part) + 1
        yield tuple(terms)


def _parse_term(part: str, text: str, at: int) -> Term:
    head = _TERM.fullmatch(part)
    assert head is not None
    rest, start = head["rest"], at + head.start("rest")
    tail = _TAIL.search(rest)
    body = rest[: tail.start()] if tail else rest
    method, arguments, value, value_at = _parse_method(body, text, start)
    if tail and head["at"]:
        raise SelectionError("`@` already takes everything below, so a `+` cannot follow", text, start + tail.start())
    _check_value(method, value, text, value_at)
    return Term(
        text=part,
        method=method,
        value=value,
        arguments=arguments,
        childrens_parents=bool(head["at"]),
        parents=head["up"] is not None,
        parents_depth=int(head["up"]) if head["up"] else None,
        children=tail is not None,
        children_depth=int(tail["down"]) if tail and tail["down"] else None,
        position=at,
    )


def _parse_method(body: str, text: str, start: int) -> tuple[str, tuple[str, ...], str, int]:
    named = _METHOD.match(body)
    if named is None:
        return _default_method(body), (), body, start
    method, *arguments = named.group().split(".")
    value, value_at = body[named.end() + 1 :], start + named.end() + 1
    if method in _NOT_HERE:
        raise SelectionError(f"dbt's method `{method}` is not supported: {_NOT_HERE[method]}", text, start)
    if method not in _METHODS:
        near = get_close_matches(method.lower(), _METHODS, n=1)
        known = ", ".join(sorted(_METHODS))
        raise SelectionError(
            f"there is no method `{method}` (known: {known})", text, start, near[0] if near else None
        )
    if method == "config" and not all(arguments or [""]):
        raise SelectionError("`config` needs a key, as in config.materialized:table", text, start + len(method))
    if method != "config" and arguments:
        raise SelectionError(f"`{method}` takes no key, only `config` does", text, start + len(method))
    return method, tuple(arguments), value, value_at


def _default_method(value: str) -> str:
    if "/" in value:
        return "path"
    return "file" if value.lower().endswith((".sql", ".py", ".csv")) else "fqn"


def _check_value(method: str, value: str, text: str, at: int) -> None:
    if not value:
        raise SelectionError("a value is missing here (no blank may follow the colon or a `+`)", text, at)
    for sign in "+@:":
        if method == "fqn" and sign in value:
            what = "put a blank between two names" if sign != ":" else "a method stands before the colon"
            raise SelectionError(f"`{sign}` cannot stand inside a name; {what}", text, at + value.index(sign))
    if method in _MOST_PARTS and value.count(".") >= _MOST_PARTS[method]:
        form = "package.source.table" if method == "source" else f"package.{method}_name"
        raise SelectionError(f"`{method}:` takes at most {form}", text, at)
    if method == "resource_type" and value not in RESOURCE_TYPES:
        near = get_close_matches(value.lower(), RESOURCE_TYPES, n=1)
        raise SelectionError(f"there is no resource type `{value}`", text, at, near[0] if near else None)


_MOST_PARTS = {"source": 3, "exposure": 2, "metric": 2, "semantic_model": 2, "saved_query": 2, "unit_test": 2}


# ----------------------------------------------------------------------------------------- choosing


def _select(lineage: Lineage, selector: Selector) -> set[int]:
    chosen: set[int] = set()
    for first, *others in selector.union:
        both = set(_select_term(lineage, first))
        for term in others:
            both &= _select_term(lineage, term)
        chosen |= both
    return chosen


def _select_term(lineage: Lineage, term: Term) -> frozenset[int]:
    matched = _matches(lineage, term)
    chosen = set(matched)
    if term.childrens_parents:
        below = matched | reach(lineage.children, matched)
        chosen |= below | reach(lineage.parents, below)
    if term.parents:
        chosen |= reach(lineage.parents, matched, term.parents_depth)
    if term.children:
        chosen |= reach(lineage.children, matched, term.children_depth)
    # dbt's graph has no nodes for ids that nothing describes; a selection must not invent them.
    return frozenset(i for i in chosen if lineage.nodes[i].known)


def _matches(lineage: Lineage, term: Term) -> frozenset[int]:
    """Positions that a term matches by itself. Kept, because hundreds of dashboards repeat the same terms."""
    kept: dict[tuple[str, tuple[str, ...], str], frozenset[int]] = lineage.memo.setdefault("terms", {})
    key = (term.method, term.arguments, term.value)
    if key not in kept:
        kept[key] = frozenset(_METHODS[term.method](lineage, term))
    return kept[key]


def _pattern(text: str) -> Callable[[str], object]:
    """dbt's `fnmatch` on POSIX: `*`, `?` and `[…]` cross dots and slashes, case counts."""
    return re.compile(translate(text)).match


def _by(lineage: Lineage, what: str, key: Callable[[LineageNode], Iterable[str]]) -> Mapping[str, Sequence[int]]:
    """An index of the known nodes by the values `key` gives, made once per lineage."""
    kept: Mapping[str, Sequence[int]] | None = lineage.memo.get(("by", what))
    if kept is None:
        table: dict[str, list[int]] = {}
        for i, node in enumerate(lineage.nodes):
            if node.known:
                for value in key(node):
                    table.setdefault(value, []).append(i)
        kept = lineage.memo["by", what] = table
    return kept


def _lookup(table: Mapping[str, Sequence[int]], wanted: str) -> Iterator[int]:
    """The positions under every key that the glob `wanted` matches."""
    if not _WILD.search(wanted):
        yield from table.get(wanted, ())
        return
    matches = _pattern(wanted)
    for value, positions in table.items():
        if matches(value):
            yield from positions


def _simple(what: str, key: Callable[[LineageNode], Iterable[str]], lineage: Lineage, term: Term) -> Iterable[int]:
    return _lookup(_by(lineage, what, key), term.value)


def _package(lineage: Lineage, term: Term) -> Iterable[int]:
    name = lineage.info.project_name if term.value == "this" else term.value
    return _lookup(_by(lineage, "package", lambda node: (node.package_name,)), name or term.value)


def _group_of(node: LineageNode) -> tuple[str, ...]:
    """dbt looks for groups at what is in `nodes`, and at metrics."""
    groupable = node.resource_type in {"model", "seed", "snapshot", "test", "analysis", "metric"}
    return (node.group,) if node.group and groupable else ()


def _file_of(node: LineageNode) -> set[str]:
    file = PurePosixPath(_slashes(node.path))
    return {file.name, file.stem}


def _source(lineage: Lineage, term: Term) -> Iterable[int]:
    parts = term.value.split(".")
    package, source, table = {1: ("*", *parts, "*"), 2: ("*", *parts)}.get(len(parts), tuple(parts))
    match_package, match_source, match_table = _pattern(package), _pattern(source), _pattern(table)
    for i in _by(lineage, "type", lambda node: (node.resource_type,)).get("source", ()):
        node = lineage.nodes[i]
        if match_package(node.package_name) and match_source(node.source_name) and match_table(node.name):
            yield i


def _named(kind: str, lineage: Lineage, term: Term) -> Iterable[int]:
    package, _, name = term.value.rpartition(".")
    in_package = _pattern(package or "*")
    table = _by(lineage, f"name of {kind}", lambda node: (node.name,) if node.resource_type == kind else ())
    return (i for i in _lookup(table, name) if in_package(lineage.nodes[i].package_name))


def _config(lineage: Lineage, term: Term) -> Iterable[int]:
    """`config.key.key:value` on what has a configuration: everything in dbt's `nodes`, and sources."""
    table = _by(lineage, "config", lambda node: (node.config,) if _is_configurable(node) else ())
    for text, positions in table.items():
        if _config_holds(config_of(text), term.arguments, term.value):
            yield from positions


def _is_configurable(node: LineageNode) -> bool:
    return node.resource_type in {"model", "seed", "snapshot", "test", "analysis", "source"}


def _config_holds(config: Mapping[str, Any], keys: tuple[str, ...], wanted: str) -> bool:
    value: Any = config
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    if keys == ("severity",) and isinstance(value, str):
        return value.lower() == wanted.lower()
    truth = {"true": True, "false": False}.get(wanted.lower())
    found = value if isinstance(value, list) else [value]
    return any(one == wanted or (truth is not None and one is truth) for one in found)


def _path(lineage: Lineage, term: Term) -> Iterable[int]:
    """dbt globs the project directory and takes what stands at or under a hit, or is described by a file hit.

    The nodes of other packages count only where their path, relative to their package, is also one of this project.
    """
    matches = _path_pattern(term.value)
    hits = {place for place in _places(lineage) if matches(place)}
    for path, positions in _by(lineage, "path", lambda node: (_slashes(node.path),)).items():
        if not hits.isdisjoint(_with_parents(path)):
            yield from positions
    described = _by(lineage, "patch", lambda node: (_slashes(node.patch_path),) if node.patch_path else ())
    for path in hits.intersection(described):
        yield from described[path]


def _places(lineage: Lineage) -> frozenset[str]:
    """Every file and directory of the project that the manifest speaks of."""
    kept: frozenset[str] | None = lineage.memo.get("places")
    if kept is None:
        project = lineage.info.project_name
        own = [node for node in lineage.nodes if not project or node.package_name == project]
        files = {_slashes(path) for node in own for path in (node.path, node.patch_path) if path}
        kept = lineage.memo["places"] = frozenset(place for path in files for place in _with_parents(path))
    return kept


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _path_pattern(glob: str) -> Callable[[str], object]:
    """pathlib's glob: `*` stays within one part of the path, `**` stands for any number of directories."""
    parts = [part for part in glob.replace("\\", "/").split("/") if part not in {"", "."}]
    if not parts:
        return lambda _: True
    whole = "".join("(?:[^/]+/)*" if part == "**" else _path_part(part) + "/" for part in parts)
    pattern = re.compile(whole)
    # A path is matched with a slash at its end, so that every part ends the same way.
    return lambda path: pattern.fullmatch(path + "/")


def _path_part(glob: str) -> str:
    pieces = []
    for piece in re.findall(r"\*+|\?|\[!?\]?[^\]]*\]|.", glob, re.DOTALL):
        if piece[0] == "*":
            pieces.append("[^/]*")
        elif piece == "?":
            pieces.append("[^/]")
        elif len(piece) > 1:
            pieces.append("(?!/)" + translate(piece)[:-2])  # fnmatch knows all the oddities of sets
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)


# ------------------------------------------------------------------------------- fully qualified names


@dataclass(frozen=True, slots=True)
class _Names:
    """What names are looked up in: leaf names, directories (with and without the package), odd ones."""

    leaves: Mapping[str, Sequence[int]]
    directories: Mapping[str, Sequence[int]]
    dotted: Sequence[int]
    everything: Sequence[tuple[int, str, str, str]]


def _names(lineage: Lineage) -> _Names:
    kept: _Names | None = lineage.memo.get("names")
    if kept is not None:
        return kept
    leaves: dict[str, list[int]] = {}
    inside: dict[tuple[str, ...], list[int]] = {}
    dotted: list[int] = []
    everything: list[tuple[int, str, str, str]] = []
    for i, node in enumerate(lineage.nodes):
        fqn = node.fqn
        if not fqn or node.resource_type == "source" or not node.known:
            continue  # dbt: sources are not selected by name
        leaf = fqn[-1]
        inside.setdefault(fqn[:-1], []).append(i)
        if "." in leaf:
            dotted.append(i)
        versioned = _is_versioned(node)
        name = fqn[-2] if versioned else leaf
        everything.append((i, name, ".".join(fqn), ".".join(fqn[1:])))
        for alias in (name, f"{name}_{leaf}", f"{name}.{leaf}") if versioned else (name,):
            leaves.setdefault(alias, []).append(i)
    directories: dict[str, list[int]] = {}
    for parts, positions in inside.items():
        for prefix in {*_prefixes(parts), *_prefixes(parts[1:])}:
            directories.setdefault(prefix, []).extend(positions)
    lineage.memo["names"] = kept = _Names(leaves, directories, dotted, everything)
    return kept


def _is_versioned(node: LineageNode) -> bool:
    return node.resource_type == "model" and node.version is not None and len(node.fqn) > 1


def _prefixes(parts: tuple[str, ...]) -> Iterator[str]:
    flat = ".".join(parts)
    at = flat.find(".")
    while at >= 0:
        yield flat[:at]
        at = flat.find(".", at + 1)
    if flat:
        yield flat


def _fqn(lineage: Lineage, term: Term) -> Iterable[int]:
    names, wanted = _names(lineage), term.value
    if _WILD.search(wanted):
        yield from _fqn_glob(names, wanted)
        return
    yield from names.leaves.get(wanted, ())
    yield from names.directories.get(wanted, ())
    last = wanted.rsplit(".", 1)[-1]
    # The whole fqn, or a versioned model with anything before its last two parts, as dbt has it.
    ends = {*names.leaves.get(last, ()), *names.leaves.get(".".join(wanted.split(".")[-2:]), ()), *names.dotted}
    for i in ends:
        node = lineage.nodes[i]
        version_fits = _is_versioned(node) and "_".join(wanted.split(".")[-2:]) == "_".join(node.fqn[-2:])
        if version_fits or any(wanted == flat or flat.startswith(wanted + ".") for flat in _flat(node)):
            yield i


def _flat(node: LineageNode) -> tuple[str, str]:
    return ".".join(node.fqn), ".".join(node.fqn[1:])


def _fqn_glob(names: _Names, wanted: str) -> Iterator[int]:
    parts = wanted.split(".")
    plain = next(k for k, part in enumerate(parts) if _WILD.search(part))
    before = "".join(part + "." for part in parts[:plain])
    matches = _pattern(".".join(parts[plain:]))
    for i, name, whole, short in names.everything:
        if name == wanted or (len(parts) == 1 and matches(name)):
            yield i
            continue
        for flat in (whole, short):
            long_enough = flat.count(".") >= len(parts) - 1
            if long_enough and flat.startswith(before) and matches(flat[len(before) :]):
                yield i
                break


_METHODS: Mapping[str, Callable[[Lineage, Term], Iterable[int]]] = {
    "config": _config,
    "exposure": partial(_named, "exposure"),
    "file": partial(_simple, "file", _file_of),
    "fqn": _fqn,
    "group": partial(_simple, "group", _group_of),
    "metric": partial(_named, "metric"),
    "package": _package,
    "path": _path,
    "resource_type": partial(_simple, "type", lambda node: (node.resource_type,)),
    "saved_query": partial(_named, "saved_query"),
    "semantic_model": partial(_named, "semantic_model"),
    "source": _source,
    "tag": partial(_simple, "tag", lambda node: node.tags),
    "unit_test": partial(_named, "unit_test"),
}
