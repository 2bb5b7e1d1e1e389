"""A YAML file as a tree of nodes that know where they stand.

Only the parser is ruamel's: the tree is built from its events, without recursion, so that depth and the
size that aliases unfold to stay bounded, every duplicate key is seen, and scalars keep their text (a
token of digits is not a number yet, see `typed`). YAML 1.2: `yes` and `no` are words. Tags other than
the plain ones are refused; `<<` merges as everywhere.

Messages never repeat text of the file except keys: any value may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from downriver.config.problems import Problem, key_path

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_UNFOLDED: Final = 200_000
"""Nodes that aliases may add beyond those written in the file."""

_PREFIX: Final = "tag:yaml.org,2002:"
_QUOTES_NEEDED: Final = re.compile(r"""^\s*(?:-\s+)?[^#'"]*[:\-\[,]\s+[^\s#'"][^#'"]*\{\{|:\s*\{\{""")
_QUOTES_CLASH: Final = re.compile(r'"[^"]*\{\{[^"}]*"|' + r"'[^']*\{\{[^'}]*'")
_TAB_INDENT: Final = re.compile(r" *\t[ \t]*(?=[^\s#])")
QUOTE_REFERENCE: Final = "Put quotes around the value: \"{{ secret('NAME') }}\"."


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value. `plain` is False when it stood in quotes or a block, and so is text for certain.

    `exact` is the column of the first character of `text` when every character of it stands in the file
    as it is, else None.
    """

    text: str = field(repr=False)
    plain: bool
    line: int
    column: int
    exact: int | None = None
    size: int = 1


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list."""

    items: tuple[Node, ...]
    line: int
    column: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping with its value; the position is the key's."""

    key: str
    value: Node
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class MapNode:
    """Keys and values, each key once."""

    entries: tuple[Entry, ...]
    line: int
    column: int
    size: int

    def get(self, key: str) -> Node | None:
        """The value of `key`, if there."""
        return next((entry.value for entry in self.entries if entry.key == key), None)


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that was reported already; nobody needs to say more about it."""

    line: int
    column: int
    size: int = 1


Node = Scalar | ListNode | MapNode | Broken


def is_null(node: Node | None) -> bool:
    """Whether the value is empty: `key:`, `key: ~`, `key: null`."""
    return isinstance(node, Scalar) and node.plain and node.text in {"", "~", "null", "Null", "NULL"}


class Report:
    """Collects problems of one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def add(
        self, at: Node | Entry | tuple[int, int], key: str, message: str, remedy: str = "", excerpt: str = ""
    ) -> None:
        """Note a problem at a node, a key, or a (line, column)."""
        line, column = at if isinstance(at, tuple) else (at.line, at.column)
        self.problems.append(Problem(line, column, self.file, key, message, remedy, excerpt))


def read(path: Path, report: Report) -> str | None:
    """The file's text, or None after reporting why not."""
    start = (1, 1)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        report.add(start, "", f"the file cannot be read: {error.strerror or type(error).__name__}.")
        return None
    if len(raw) > MAX_BYTES:
        report.add(start, "", f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB.", "Is it the right file?")
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8-sig", "replace")) + 1
        report.add((line, column), "", "this is not UTF-8 text.", "Save the file as UTF-8.")
        return None


def parse(text: str, report: Report) -> Node | None:
    """The tree of the only document in `text`. None when it is empty or cannot be read at all (reported)."""
    builder = _Builder(report)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            if not builder.take(event):
                break
    except (YAMLError, ValueError) as error:
        _report_syntax(error, text, builder.line, report)
        return None
    if builder.root is None and not report.problems:
        report.add((1, 1), "", "the file is empty.", "`downriver init` writes one to start from.")
    return builder.root


# -- building -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Frame:
    """A list or mapping under construction; `key` is the key whose value comes next."""

    is_map: bool
    line: int
    column: int
    anchor: str | None
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    merges: list[Node] = field(default_factory=list)
    key: Scalar | None = None
    broken: bool = False
    wants_value: bool = False


class _Builder:
    def __init__(self, report: Report) -> None:
        self.root: Node | None = None
        self.line = 1
        self._report = report
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        self._unfolded = 0
        self._documents = 0

    def take(self, event: Any) -> bool:
        """Work one event. False: stop reading."""
        self.line = event.start_mark.line + 1
        kind = type(event).__name__
        handler: Callable[[Any], bool] | None = getattr(self, f"_on_{_snake(kind)}", None)
        return True if handler is None else handler(event)

    def _on_document_start(self, event: Any) -> bool:
        self._documents += 1
        if self._documents > 1:
            self._report.add(_at(event), "", "a second YAML document begins here.", "Keep one: remove the `---`.")
            return False
        return True

    def _on_scalar(self, event: Any) -> bool:
        tag = _tag(event)
        line, column = _at(event)
        if tag not in {"", "!", _PREFIX + "str"}:
            return self._refuse_tag(event)
        plain = event.style in {None, ""} and not tag
        length = event.end_mark.index - event.start_mark.index
        quote = 1 if event.style in {"'", '"'} else 0
        exact = column + quote if length - 2 * quote == len(event.value) and "\n" not in event.value else None
        return self._value(Scalar(event.value, plain, line, column, exact), event.anchor)

    def _on_sequence_start(self, event: Any) -> bool:
        return self._open(event, is_map=False)

    def _on_mapping_start(self, event: Any) -> bool:
        return self._open(event, is_map=True)

    def _open(self, event: Any, *, is_map: bool) -> bool:
        if len(self._stack) >= MAX_DEPTH:
            self._report.add(_at(event), "", f"this is nested more than {MAX_DEPTH} levels deep.")
            return False
        if _tag(event) not in {"", _PREFIX + ("map" if is_map else "seq")}:
            self._refuse_tag(event, value=False)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(is_map, *_at(event), event.anchor))
        return True

    def _on_sequence_end(self, _event: Any) -> bool:
        frame = self._stack.pop()
        size = 1 + sum(item.size for item in frame.items)
        return self._value(ListNode(tuple(frame.items), frame.line, frame.column, size), frame.anchor)

    def _on_mapping_end(self, _event: Any) -> bool:
        frame = self._stack.pop()
        if frame.broken:
            return self._value(Broken(frame.line, frame.column), frame.anchor)
        for merge in frame.merges:
            self._merge(frame, merge)
        entries = tuple(frame.entries.values())
        size = 1 + sum(1 + entry.value.size for entry in entries)
        return self._value(MapNode(entries, frame.line, frame.column, size), frame.anchor)

    def _on_alias(self, event: Any) -> bool:
        target = self._anchors.get(event.anchor)
        if target is None:
            if event.anchor in self._anchors:
                message, remedy = "this alias stands inside the thing it names.", ""
            else:
                message = "this alias (`*…`) names no anchor (`&…`) above it."
                remedy = "Put quotes around a value that begins with `*`."
            self._report.add(_at(event), "", message, remedy)
            return self._value(Broken(*_at(event)), None)
        self._unfolded += target.size
        if self._unfolded > MAX_UNFOLDED:
            self._report.add(_at(event), "", f"aliases unfold to more than {MAX_UNFOLDED} values.", "Write it out.")
            return False
        return self._value(target, None)

    def _refuse_tag(self, event: Any, *, value: bool = True) -> bool:
        remedy = "Leave it out, or put quotes around a value that begins with `!`."
        self._report.add(_at(event), "", "YAML tags (`!…`) are not used here.", remedy)
        return self._value(Broken(*_at(event)), event.anchor) if value else True

    def _value(self, node: Node, anchor: str | None) -> bool:
        """A finished node: give it to the list or mapping it belongs to."""
        if anchor:
            self._anchors[anchor] = node
        if not self._stack:
            self.root = node
        elif not (frame := self._stack[-1]).is_map:
            frame.items.append(node)
        elif frame.wants_value:
            frame.wants_value = False
            if frame.key is not None:
                self._entry(frame, frame.key, node)
        else:
            frame.wants_value = True
            frame.key = self._key(frame, node)
        return True

    def _key(self, frame: _Frame, node: Node) -> Scalar | None:
        if isinstance(node, Scalar):
            return node
        if isinstance(node, MapNode) and not frame.broken:
            # `token: {{ secret('X') }}` without quotes is, to YAML, a mapping whose key is a mapping.
            self._report.add(
                (frame.line, frame.column), "", "YAML reads `{{` without quotes as a mapping.", QUOTE_REFERENCE
            )
        elif not isinstance(node, Broken):
            self._report.add(node, "", "a key must be a single word, not a list or mapping.")
        frame.broken = frame.broken or not isinstance(node, ListNode)
        return None

    def _entry(self, frame: _Frame, key: Scalar, value: Node) -> None:
        if key.plain and key.text == "<<":
            frame.merges.append(value)
            return
        first = frame.entries.get(key.text)
        if first is not None:
            remedy = f"It stands on line {first.line} already: keep one."
            self._report.add(key, self._path(key.text), "the same key twice.", remedy)
            return
        if isinstance(value, Scalar) and value.plain and not value.text:
            # An empty value has no place of its own: the parser puts it at whatever comes next.
            value = replace(value, line=key.line, column=key.column, exact=None)
        frame.entries[key.text] = Entry(key.text, value, key.line, key.column)

    def _path(self, key: str) -> str:
        """The key path of `key` in the mapping under construction."""
        parts: list[str | int] = []
        for frame in self._stack[:-1]:
            if not frame.is_map:
                parts.append(len(frame.items))
            elif frame.key is not None:
                parts.append(frame.key.text)
        return key_path((*parts, key))

    def _merge(self, frame: _Frame, merge: Node) -> None:
        parts = merge.items if isinstance(merge, ListNode) else (merge,)
        for part in parts:
            if isinstance(part, MapNode):
                for entry in part.entries:
                    frame.entries.setdefault(entry.key, entry)
            elif not isinstance(part, Broken):
                self._report.add(part, "<<", "`<<` merges mappings, and this is none.", "Name one: `<<: *anchor`.")


def _snake(event_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event_name.removesuffix("Event")).lower()


def _at(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _tag(event: Any) -> str:
    tag = getattr(event, "tag", None)
    return "" if tag is None else str(tag)


# -- what the parser complains of -------------------------------------------------------------------


_SAYINGS: Final = (
    ("mapping values are not allowed", "a `:` where no key can stand.",
     "Indent keys of one level alike; put quotes around a value that holds `: `."),
    ("could not find expected ':'", "a key without its `:`.", ""),
    ("while scanning a quoted scalar", "a quoted value that never ends.", "Close the quote."),
    ("unexpected end of stream", "a quoted value that never ends.", "Close the quote."),
    ("flow sequence", "a list `[…]` that is not closed, or lacks a comma.", ""),
    ("flow mapping", "a mapping `{…}` that is not closed, or lacks a comma.", ""),
    ("unknown escape character", "an unknown escape `\\…` in double quotes.",
     "Use single quotes, or write `\\\\` for a backslash."),
    ("cannot start any token", "a value cannot begin with this character.", "Put quotes around the value."),
    ("expected <block end>", "this line does not fit the ones above.",
     "Indent keys and list items of one level alike; a quote inside quotes must be of the other kind."),
    ("block sequence entries are not allowed", "a list item cannot stand here.", "Begin the list on the next line."),
    ("anchor", "an anchor (`&…`) or alias (`*…`) that cannot be read.",
     "Put quotes around a value that begins with `&` or `*`."),
    ("alias", "an anchor (`&…`) or alias (`*…`) that cannot be read.",
     "Put quotes around a value that begins with `&` or `*`."),
    ("directive", "a line that begins with `%` cannot be read.", "Put quotes around a value that begins with `%`."),
    ("YAML document (version", "a YAML version this cannot read.", "Remove the `%YAML` line."),
    ("tag", "YAML tags (`!…`) are not used here.", "Put quotes around a value that begins with `!`."),
)  # fmt: skip


def _report_syntax(error: Exception, text: str, last_line: int, report: Report) -> None:
    lines = text.splitlines()
    tabs = [(n, line.index("\t") + 1) for n, line in enumerate(lines, 1) if _TAB_INDENT.match(line)]
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if isinstance(error, ReaderError):
        before = text[: error.position]
        at = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        report.add(at, "", "a control character cannot stand in YAML.", "Remove it.")
        return
    if mark is None:
        report.add((last_line, 1), "", "YAML cannot read what stands on this line or below.")
        return
    at = (mark.line + 1, mark.column + 1)
    if tabs and any(line <= at[0] for line, _ in tabs):
        for line, column in tabs:
            report.add((line, column), "", "a tab indents this line; YAML allows only spaces.", "Use spaces.")
        return
    line_text = lines[mark.line] if mark.line < len(lines) else ""
    message, remedy = _saying(f"{getattr(error, 'problem', '')} {getattr(error, 'context', '')}")
    if "{{" in line_text and (_QUOTES_CLASH.search(line_text) or _QUOTES_NEEDED.search(line_text)):
        clash = _QUOTES_CLASH.search(line_text) is not None
        message = "a reference whose quotes YAML cannot read."
        remedy = "Inside double quotes use single ones: \"{{ secret('NAME') }}\"." if clash else QUOTE_REFERENCE
    report.add(at, "", message, remedy)


def _saying(said: str) -> tuple[str, str]:
    for needle, message, remedy in _SAYINGS:
        if needle in said:
            return message, remedy
    return "YAML cannot read this.", "Compare the indentation with the lines above."
