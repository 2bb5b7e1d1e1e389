"""From positioned nodes to the plain values a model validates: key by key, references resolved."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, SecretStr

from downriver.config import typed, validate
from downriver.config.document import Broken, Entry, ListNode, MapNode, Node, Report, Scalar, is_null
from downriver.config.problems import key_path, listed, nearest, suggestion
from downriver.config.references import BadReference, Resolved, Resolver, Secret, Unresolved, parse

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]

_INT: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TRUTHS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_MAX_DIGITS: Final = 400
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9]+")


@dataclass(slots=True)
class Reader:
    """Reads the items of one file. `hidden` collects values that must never be shown."""

    report: Report
    warnings: Report
    resolver: Resolver
    hidden: set[str] = field(default_factory=set, repr=False)

    def keys(self, node: MapNode, known: Collection[str], path: Path) -> MapNode:
        """`node` without its unknown keys, which are reported.

        A key that is plainly a misspelling of a known one is read as that one, so that its value is
        judged too and nobody hears in addition that the right key is missing.
        """
        present = {entry.key for entry in node.entries}
        kept: list[Entry] = []
        for entry in node.entries:
            if entry.key in known:
                kept.append(entry)
                continue
            remedy = suggestion(entry.key, known, "The keys here are")
            self.report.add(entry, key_path((*path, entry.key)), "unknown key.", remedy)
            near = nearest(entry.key, known)
            if near is not None and near not in present:
                present.add(near)
                kept.append(replace(entry, key=near))
        return replace(node, entries=tuple(kept))

    def model(self, model: type[M], node: MapNode, path: Path, *, owner: str = "") -> M | None:
        """`node` as a `model`, or None after reporting what is wrong. `owner` names the item it belongs to."""
        mended = self._mend(node, model, path)
        values = _Values(self, model, owner)
        data = values.plain(mended, model, path)
        return validate.judge(model, data, mended, path, failed=values.failed, report=self.report)

    def peek(self, node: Node | None) -> str | None:
        """The text of a scalar, if it can be told now; nothing is reported."""
        if not isinstance(node, Scalar) or is_null(node):
            return None
        try:
            if any(isinstance(part, Secret) for part in parse(node.text)):
                return None
            resolved = self.resolver.resolve(node.text)
        except (BadReference, Unresolved):
            return None
        return resolved.text if resolved else None

    def _mend(self, node: Node, annotation: Any, path: Path) -> Node:
        if isinstance(node, ListNode):
            inner = typed.item(annotation)
            items = tuple(self._mend(item, inner, (*path, n)) for n, item in enumerate(node.items))
            return replace(node, items=items)
        if not isinstance(node, MapNode):
            return node
        known = typed.known_keys(annotation)
        if known is not None:
            node = self.keys(node, known, path)
        entries = tuple(
            replace(e, value=self._mend(e.value, typed.child(annotation, e.key), (*path, e.key)))
            for e in node.entries
        )
        return replace(node, entries=entries)


@dataclass(slots=True)
class _Values:
    """Turns the nodes of one item into values. `failed` are the places that were reported on the way."""

    reader: Reader
    root: type[BaseModel]
    owner: str
    failed: set[Path] = field(default_factory=set)

    def plain(self, node: Node, annotation: Any, path: Path) -> Any:
        if isinstance(node, ListNode):
            inner = typed.item(annotation)
            return [self.plain(item, inner, (*path, n)) for n, item in enumerate(node.items)]
        if isinstance(node, MapNode):
            return {e.key: self.plain(e.value, typed.child(annotation, e.key), (*path, e.key)) for e in node.entries}
        if isinstance(node, Broken):
            self.failed.add(path)
            return None
        return None if is_null(node) else self._scalar(node, annotation, path)

    def _scalar(self, node: Scalar, annotation: Any, path: Path) -> Any:
        is_secret = typed.takes_secret(annotation)
        if "{{" in node.text:
            resolved = self._resolve(node, path)
            if resolved is None:
                return None
            if resolved.secrets and not is_secret:
                return self._misplaced(node, path)
            return self._secret(node, resolved, path) if is_secret else resolved.text
        if is_secret:
            return self._secret(node, Resolved(node.text, (), literal=True), path)
        if not node.plain or typed.wants_text(annotation):
            return node.text
        return self._number(node, path)

    def _resolve(self, node: Scalar, path: Path) -> Resolved | None:
        try:
            resolved = self.reader.resolver.resolve(node.text)
        except BadReference as bad:
            self.failed.add(path)
            self.reader.report.add(_place(node, bad.offset), key_path(path), bad.message, bad.remedy, bad.excerpt)
            return None
        except Unresolved as bad:
            self.failed.add(path)
            self.reader.report.add(_place(node, bad.offset), key_path(path), bad.message, bad.remedy)
            return None
        if resolved is None:
            self.failed.add(path)
        return resolved

    def _misplaced(self, node: Scalar, path: Path) -> None:
        allowed = typed.secret_keys(self.root)
        message = "a secret cannot stand here: this value is shown on pages and in listings."
        remedy = f"Secrets may stand only in {listed(allowed)}." if allowed else "Nothing here takes a secret."
        self.reader.report.add(node, key_path(path), message, remedy)
        self.failed.add(path)

    def _secret(self, node: Scalar, resolved: Resolved, path: Path) -> SecretStr | None:
        key = key_path(path)
        text = resolved.text
        if not text.strip():
            self.failed.add(path)
            self.reader.report.add(node, key, "this secret is empty.", "Give it a value, or leave the key out.")
            return None
        self.reader.hidden.add(text)
        if resolved.literal and not resolved.secrets:
            name = _secret_name(self.owner, path)
            remedy = (
                f"Put it in the vault: `downriver secrets set {name}`, and write \"{{{{ secret('{name}') }}}}\" here."
            )
            self.reader.warnings.add(node, key, "this secret stands in the file as plain text.", remedy)
        if text != text.strip():
            message = "this secret begins or ends with white space, perhaps a line end that was pasted along."
            self.reader.warnings.add(node, key, message, "Set it again without.")
        return SecretStr(text)

    def _number(self, node: Scalar, path: Path) -> Any:
        """A plain scalar by the rules of YAML 1.2: truth value, number, or text."""
        text = node.text
        if text in _TRUTHS:
            return _TRUTHS[text]
        problem = ""
        if len(text) > _MAX_DIGITS and (_INT.fullmatch(text) or _HEX.fullmatch(text) or _OCTAL.fullmatch(text)):
            problem = f"a number of more than {_MAX_DIGITS} digits."
        elif _INT.fullmatch(text):
            return int(text)
        elif _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
            return int(text, 0)
        elif _FLOAT.fullmatch(text):
            value = float(text)
            if math.isfinite(value):
                return value
            problem = "a number too large to be sent as JSON."
        elif _NOT_FINITE.fullmatch(text):
            problem = "this is no number that can be sent as JSON."
        else:
            return text
        self.failed.add(path)
        self.reader.report.add(node, key_path(path), problem, "Put it in quotes if it is text.")
        return None


def _place(node: Scalar, offset: int) -> tuple[int, int]:
    """Where in the file the character at `offset` of a value stands; the value's beginning if that is unknown."""
    return (node.line, node.column if node.exact is None else node.exact + offset)


def _secret_name(owner: str, path: Path) -> str:
    """A name for a secret of this key: `SALES_TOKEN`."""
    key = next((part for part in reversed(path) if isinstance(part, str)), "SECRET")
    name = _NOT_A_NAME.sub("_", f"{owner}_{key}" if owner else key).strip("_").upper()[:128]
    return name if not name[:1].isdigit() else f"_{name}"[:128]
