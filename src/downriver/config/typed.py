"""What a pydantic model wants at each place of a YAML tree, read off its annotations.

Needed before pydantic sees the values: whether a plain `123456789e12` is a number or a report's token
whose text must survive, whether a secret may stand here, and which keys there are.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from enum import IntEnum
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, ForwardRef, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo

_NUMBERS = (bool, int, float, complex, Decimal, IntEnum)


def arms(annotation: Any) -> Iterator[Any]:
    """The alternatives an annotation allows: unions, aliases and `Annotated` opened up."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from arms(get_args(annotation)[0])
    elif origin is Union or origin is types.UnionType:
        for arm in get_args(annotation):
            yield from arms(arm)
    elif hasattr(annotation, "__value__"):  # `type X = …` and its backport
        yield from arms(annotation.__value__)
    elif isinstance(annotation, (str, ForwardRef)):
        yield Any  # the inside of a recursive alias such as pydantic's JsonValue: anything JSON
    elif isinstance(annotation, TypeVar):
        yield from arms(annotation.__bound__ or Any)
    else:
        yield annotation


def models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The models among the alternatives."""
    return tuple(arm for arm in arms(annotation) if isinstance(arm, type) and issubclass(arm, BaseModel))


def wants_text(annotation: Any) -> bool:
    """Whether a plain scalar is to stay the text it is: nothing here takes a number or truth value."""
    for arm in arms(annotation):
        if arm is Any or arm is object:
            return False
        if get_origin(arm) is Literal:
            if not all(isinstance(value, str) for value in get_args(arm)):
                return False
        elif isinstance(arm, type) and get_origin(arm) is None and issubclass(arm, _NUMBERS):
            return False
    return True


def takes_secret(annotation: Any) -> bool:
    """Whether a secret may stand at this very place."""
    return any(isinstance(arm, type) and issubclass(arm, SecretStr) for arm in arms(annotation))


def secret_keys(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys of `model` in which secrets may stand, directly or deeper."""
    return tuple(key for key, info in fields(model).items() if _reaches_secret(info.annotation, frozenset()))


def _reaches_secret(annotation: Any, seen: frozenset[type[BaseModel]]) -> bool:
    if takes_secret(annotation):
        return True
    inner = [argument for arm in arms(annotation) for argument in get_args(arm) if get_origin(arm) is not Literal]
    for model in models(annotation):
        if model not in seen:
            seen |= {model}
            inner += [info.annotation for info in model.model_fields.values()]
    return any(_reaches_secret(one, seen) for one in inner if one is not Ellipsis)


@cache
def fields(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """The fields of `model` by the keys they have in YAML."""
    found: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        for key in _names(name, info):
            found[key] = info
        if model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name"):
            found[name] = info
    return MappingProxyType(found)


def _names(name: str, info: FieldInfo) -> tuple[str, ...]:
    alias = info.validation_alias or info.alias
    if isinstance(alias, AliasChoices):
        return tuple(choice for choice in alias.choices if isinstance(choice, str))
    return (alias if isinstance(alias, str) else name,)


def known_keys(annotation: Any) -> Collection[str] | None:
    """The keys a mapping may have here, or None when it may have any."""
    found: set[str] = set()
    for arm in arms(annotation):
        if arm is Any or arm is object or _is_mapping(arm):
            return None
    for model in models(annotation):
        if model.model_config.get("extra") == "allow":
            return None
        found |= set(fields(model))
    return found if models(annotation) else None


def child(annotation: Any, key: str) -> Any:
    """What stands under `key` of a mapping here; `Any` where anything may."""
    found = [fields(model)[key].annotation for model in models(annotation) if key in fields(model)]
    found += [get_args(arm)[1] for arm in arms(annotation) if _is_mapping(arm) and len(get_args(arm)) == 2]
    return _either(found)


def item(annotation: Any) -> Any:
    """What the items of a list here are; `Any` where anything may stand."""
    found: list[Any] = []
    for arm in arms(annotation):
        if not _is_mapping(arm) and get_origin(arm) is not Literal:
            found += [argument for argument in get_args(arm) if argument is not Ellipsis]
    return _either(found)


def _either(found: list[Any]) -> Any:
    return Union[tuple(found)] if found else Any  # noqa: UP007 - built at run time


def _is_mapping(arm: Any) -> bool:
    """Whether `arm` is `dict`, `dict[…]`, `Mapping[…]` or the like."""
    origin = get_origin(arm) or arm
    return isinstance(origin, type) and issubclass(origin, Mapping)
