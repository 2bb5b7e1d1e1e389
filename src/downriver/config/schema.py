"""downriver.yml as JSON Schema (2020-12), for editors.

Made from the same models that `load` uses, then widened by what `load` accepts besides: a reference in
the place of any value, and numbers where text is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from downriver.config.model import (
    ConnectionKeys,
    ConnectorType,
    DashboardKeys,
    SourceKeys,
    SourceType,
    TopKeys,
)

JsonSchema = dict[str, Any]

_REFERENCE: Final[JsonSchema] = {
    "type": "string",
    "pattern": r"\{\{.*\}\}",
    "description": "A reference: {{ env_var('NAME') }}, {{ env_var('NAME', 'default') }} or {{ secret('NAME') }}.",
}
_TEXT: Final = ["string", "number", "boolean"]
_INNER: Final = ("properties", "$defs", "patternProperties")
_INNER_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_INNER_ONE: Final = ("items", "additionalProperties")
_NOT_FOR_EDITORS: Final = ("writeOnly", "format", "default")
_NARROWING: Final = ("pattern", "enum", "const", "minLength", "maxLength", "contentEncoding")


def schema(source_types: Mapping[str, SourceType], connector_types: Mapping[str, ConnectorType]) -> JsonSchema:
    """The schema of the whole file for the kinds there are."""
    kinds: list[type[BaseModel]] = [kind.config for kind in source_types.values()]
    kinds += [kind.config for kind in connector_types.values()]
    assets = [kind.asset for kind in connector_types.values()]
    every: list[type[BaseModel]] = [TopKeys, SourceKeys, ConnectionKeys, DashboardKeys, *kinds, *assets]
    references, parts = models_json_schema([(model, "validation") for model in dict.fromkeys(every)])
    definitions: dict[str, JsonSchema] = parts["$defs"]

    def made(model: type[BaseModel]) -> JsonSchema:
        name: str = references[(model, "validation")]["$ref"].rsplit("/", 1)[1]
        return definitions[name]

    top = made(TopKeys)["properties"]
    sources = [_of_kind(made(SourceKeys), kind, made(kind.config)) for kind in source_types.values()]
    connections = [_of_kind(made(ConnectionKeys), kind, made(kind.config)) for kind in connector_types.values()]
    dashboard = _dashboard(made(DashboardKeys), [made(asset) for asset in dict.fromkeys(assets)])
    result = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "downriver.yml",
        "type": "object",
        "properties": {
            **{key: _widen(said) for key, said in top.items()},
            "sources": _items(sources, top["sources"]["description"]),
            "connections": _items(connections, top["connections"]["description"]),
            "dashboards": _items([dashboard], top["dashboards"]["description"]),
        },
        "additionalProperties": False,
    }
    widened = {name: _widen(part) for name, part in definitions.items()} | {"reference": dict(_REFERENCE)}
    used: set[str] = set()
    _follow(result, widened, used)
    return {**result, "$defs": {name: widened[name] for name in sorted(used)}}


def _follow(part: Any, definitions: Mapping[str, JsonSchema], used: set[str]) -> None:
    """Add to `used` the names of all definitions that `part` refers to, directly or by way of others."""
    if isinstance(part, list):
        for inner in part:
            _follow(inner, definitions, used)
    elif isinstance(part, dict):
        reference = part.get("$ref")
        if isinstance(reference, str):
            name = reference.rsplit("/", 1)[1]
            if name not in used:
                used.add(name)
                _follow(definitions[name], definitions, used)
        for inner in part.values():
            _follow(inner, definitions, used)


def _items(alternatives: list[JsonSchema], description: str) -> JsonSchema:
    """A list of such items; nothing at all is an empty list, as when every item is commented out."""
    found = [_widen(one) for one in alternatives]
    items: JsonSchema | bool = {"anyOf": found} if len(found) > 1 else found[0] if found else False
    return {"description": description, "type": ["array", "null"], "items": items}


def _of_kind(common: JsonSchema, kind: SourceType | ConnectorType, options: JsonSchema) -> JsonSchema:
    """An item of one kind: the common keys and its own, told by `type`."""
    described = {**common["properties"]["type"], "const": kind.kind, "description": kind.title}
    return {
        **{key: options[key] for key in ("additionalProperties",) if key in options},
        "title": kind.title,
        "type": "object",
        "properties": {**common["properties"], "type": described, **options.get("properties", {})},
        "required": [*common.get("required", []), *options.get("required", [])],
    }


def _dashboard(common: JsonSchema, assets: list[JsonSchema]) -> JsonSchema:
    """A dashboard of any kind: the connection, which alone tells the kind, is only a name here.

    Keys of all kinds are allowed; those that every kind requires are required.
    """
    properties: dict[str, JsonSchema] = {}
    for asset in assets:
        for key, said in asset.get("properties", {}).items():
            known = properties.get(key)
            properties[key] = said if known is None or known == said else {"anyOf": [known, said]}
    required = [set(asset.get("required", [])) for asset in assets]
    shared = sorted(set.intersection(*required)) if required else []
    return {
        "title": "Dashboard",
        "type": "object",
        "properties": {**common["properties"], **properties},
        "required": [*common.get("required", []), *shared],
        **({"additionalProperties": True} if any(a.get("additionalProperties") is True for a in assets) else {}),
    }


def _widen(part: JsonSchema) -> JsonSchema:
    """`part` closed to unknown keys, and open to references and to unquoted numbers, at every depth."""
    said = {key: value for key, value in part.items() if key not in _NOT_FOR_EDITORS}
    for key in _INNER:
        if key in said:
            said[key] = {name: _widen(inner) for name, inner in said[key].items()}
    for key in _INNER_LISTS:
        if key in said:
            said[key] = [_widen(inner) for inner in said[key]]
    for key in _INNER_ONE:
        if isinstance(said.get(key), dict):
            said[key] = _widen(said[key])
    if "properties" in said:
        said.setdefault("additionalProperties", False)
        return said
    return _with_reference(said)


def _with_reference(said: JsonSchema) -> JsonSchema:
    kind = said.get("type")
    if kind == "string" and not any(key in said for key in _NARROWING):
        return {**said, "type": _TEXT}
    scalar = kind in ("string", "integer", "number", "boolean")
    if not scalar and not (kind is None and ("const" in said or "enum" in said)):
        return said
    outer: JsonSchema = {key: said.pop(key) for key in ("title", "description") if key in said}
    return {**outer, "anyOf": [said, {"$ref": "#/$defs/reference"}]}
