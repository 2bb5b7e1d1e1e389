"""The kinds of sources there are, by the word used as `type:` in downriver.yml."""

from __future__ import annotations

from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from downriver.core.errors import ConfigError
from downriver.sources import dbt_platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downriver.sources.base import SourceSpec

SOURCES: Final[Mapping[str, SourceSpec]] = MappingProxyType(
    {spec.kind: spec for spec in (dbt_platform.SPEC,)},
)


def source_spec(kind: str) -> SourceSpec:
    """The spec of a kind of source. Raises ConfigError naming the nearest kind, and all there are."""
    spec = SOURCES.get(kind)
    if spec is None:
        near = get_close_matches(kind, SOURCES, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ConfigError(f"There is no source of type `{kind}`.{hint} The types are: {', '.join(sorted(SOURCES))}.")
    return spec
