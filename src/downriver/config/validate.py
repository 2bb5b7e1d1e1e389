"""What pydantic finds wrong, said at its place in the file and in our words. No message holds a value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from downriver.config import typed
from downriver.config.document import ListNode, MapNode, Node, Report, Scalar, is_null
from downriver.config.problems import key_path, nearest

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]

_TEXT, _WHOLE, _NUMBER, _TRUTH = "text", "a whole number", "a number", "true or false"
_LIST, _MAPPING = "a list", "a mapping (`key: value`)"
_EXPECTED: Final = {
    "string_type": _TEXT,
    "string_sub_type": _TEXT,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "iterable_type": _LIST,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "url_type": "a URL",
    "url_parsing": "a URL (`https://…`)",
    "none_required": "nothing",
}


def judge(model: type[M], data: Any, node: Node, path: Path, *, failed: Iterable[Path], report: Report) -> M | None:
    """`data` as a `model`, or None after reporting each complaint.

    `node` stands at `path` and is where `data` came from. `failed` are places that were reported before:
    nothing more is said of them, nor is the model returned when there are any.
    """
    known_bad = tuple(failed)
    try:
        made = model.model_validate(data)
    except ValidationError as error:
        complaints: dict[Path, list[tuple[Node, dict[str, Any]]]] = {}
        for detail in error.errors(include_url=False, include_input=False):
            at, where = _locate(node, detail["loc"], missing=detail["type"] == "missing")
            complaints.setdefault((*path, *where), []).append((at, dict(detail)))
        for where, details in complaints.items():
            if not _is_echo(where, details, known_bad, complaints):
                _say(model, where, len(path), details, report)
        return None
    return None if known_bad else made


def _locate(node: Node, loc: tuple[str | int, ...], *, missing: bool) -> tuple[Node, Path]:
    """The deepest node that `loc` names, and its path. Names of union members in `loc` are passed over."""
    at = node
    path: list[str | int] = []
    for part in loc:
        inner: Node | None = None
        if isinstance(at, MapNode) and isinstance(part, str):
            inner = at.get(part)
        elif isinstance(at, ListNode) and isinstance(part, int) and part < len(at.items):
            inner = at.items[part]
        if inner is not None:
            at = inner
            path.append(part)
    if missing:
        path.append(loc[-1])
    return at, tuple(path)


def _is_echo(
    where: Path, details: list[tuple[Node, dict[str, Any]]], failed: tuple[Path, ...], all_places: Iterable[Path]
) -> bool:
    """Whether a complaint only repeats one made elsewhere.

    Either the place was reported before, or it is one alternative of a union that did not fit while
    another alternative came further and complained deeper.
    """
    if any(where[: len(bad)] == bad for bad in failed):
        return True
    if all(detail["type"] == "missing" for _, detail in details):
        return False
    if any(bad[: len(where)] == where for bad in failed):
        return True
    mismatch = all(detail["type"] in _EXPECTED for _, detail in details)
    return mismatch and any(len(other) > len(where) and other[: len(where)] == where for other in all_places)


def _say(
    model: type[BaseModel], where: Path, depth: int, details: list[tuple[Node, dict[str, Any]]], report: Report
) -> None:
    node = details[0][0]
    expected = list(dict.fromkeys(_EXPECTED[d["type"]] for _, d in details if d["type"] in _EXPECTED))
    said = list(dict.fromkeys(_sentence(d, n) for n, d in details if d["type"] not in _EXPECTED))
    if expected and not (said and isinstance(node, Scalar)):
        said.insert(0, f"expected {' or '.join(expected)}{_found(node)}.")
    about = _field(model, where[depth:])
    missing = details[0][1]["type"] == "missing"
    if missing:
        said = [f"`{where[-1]}` is missing."]
    remedy = _first_sentence(about.description) if missing and about is not None and about.description else ""
    report.add(node, key_path(where), " ".join(said), remedy)


def _sentence(detail: dict[str, Any], node: Node) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in {"value_error", "assertion_error"}:
        text = str(context.get("error", detail["msg"]))
    elif kind in {"literal_error", "enum"}:
        choices = [word.strip(" '") for word in str(context.get("expected", "")).replace(" or ", ",").split(",")]
        near = nearest(node.text, choices) if isinstance(node, Scalar) else None
        text = f"expected {context.get('expected')}." + (f" Did you mean `{near}`?" if near else "")
    elif kind == "extra_forbidden":
        text = "unknown key"
    else:
        text = detail["msg"].replace("Input should be", "it should be")
    text = text.strip() or "it is not valid"
    if text[-1] not in ".?!":
        text += "."
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def _found(node: Node) -> str:
    if isinstance(node, ListNode):
        return ", found a list"
    if isinstance(node, MapNode):
        return ", found a mapping"
    return ", found nothing" if is_null(node) else ""


def _field(model: type[BaseModel], path: Path) -> FieldInfo | None:
    """The model field that `path` ends at."""
    annotation: Any = model
    found: FieldInfo | None = None
    for part in path:
        if isinstance(part, int):
            found, annotation = None, typed.item(annotation)
            continue
        owners = [typed.fields(inner) for inner in typed.models(annotation)]
        found = next((fields[part] for fields in owners if part in fields), None)
        annotation = typed.child(annotation, part)
    return found


def _first_sentence(text: str) -> str:
    flat = " ".join(text.split())
    end = flat.find(". ")
    first = flat if end < 0 else flat[: end + 1]
    return first if first.endswith((".", "?", "!")) else first + "."
