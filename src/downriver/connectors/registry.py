"""Which kinds of connectors there are: the built-in ones, and those of installed packages.

A package offers one with an entry point in the group `downriver.connectors`, whose name is the kind and
whose value is its `ConnectorSpec`::

    [project.entry-points."downriver.connectors"]
    lighthouse = "acme_lighthouse.connector:SPEC"

Nothing is imported before somebody asks for its kind. One broken package does not hide the others.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from downriver.connectors.base import ConnectorSpec
from downriver.core.errors import ConfigError

GROUP: Final = "downriver.connectors"
BUILT_IN: Final[Mapping[str, str]] = {
    "mode": "downriver.connectors.mode:SPEC",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """Somebody's offer of a kind: `target` is `module:attribute`, `origin` who offers it, for people."""

    kind: str
    target: str
    origin: str


class Registry:
    """The kinds on offer. A kind's spec is imported when it is first asked for, then kept."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._offers: dict[str, list[Offer]] = {}
        self._specs: dict[str, ConnectorSpec] = {}
        for offer in offers:
            self._offers.setdefault(offer.kind, []).append(offer)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind on offer, in the order of their names, the broken ones too."""
        return tuple(sorted(self._offers))

    def spec(self, kind: str) -> ConnectorSpec:
        """The spec of `kind`. `ConfigError` when there is none, when it is broken, or offered by two packages.

        A built-in kind is always ours, whoever else offers it.
        """
        known = self._specs.get(kind)
        if known is not None:
            return known
        offers = self._offers.get(kind, [])
        if not offers:
            near = difflib.get_close_matches(kind, self.kinds, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise ConfigError(f'There is no connector of type "{kind}".{hint} Known types: {", ".join(self.kinds)}.')
        if len(offers) > 1 and kind not in BUILT_IN:
            raise ConfigError(_offered_twice(kind, offers))
        spec = self._specs[kind] = _load(offers[0])
        return spec

    def problems(self) -> tuple[str, ...]:
        """A sentence for each offer that cannot be used. Imports every kind."""
        found: list[str] = []
        for kind in self.kinds:
            try:
                self.spec(kind)
            except ConfigError as error:
                found.append(str(error))
            else:
                found += [
                    f'{other.origin} offers a connector of type "{kind}", which Downriver has itself: '
                    "it is not used. Its author should give it another name."
                    for other in self._offers[kind][1:]
                ]
        return tuple(found)


def discover(path: Sequence[str] | None = None) -> Registry:
    """The built-in kinds, then those of the distributions on `path` (on `sys.path` if None)."""
    return Registry([*(Offer(kind, target, "Downriver") for kind, target in BUILT_IN.items()), *_installed(path)])


def _installed(path: Sequence[str] | None) -> Iterator[Offer]:
    seen: set[str] = set()
    found = importlib.metadata.distributions() if path is None else importlib.metadata.distributions(path=list(path))
    for distribution in found:
        points = distribution.entry_points.select(group=GROUP)
        # Names are read only where there is something: that is the slow part of looking through a hundred.
        if points and distribution.name not in seen:
            seen.add(distribution.name)  # the first on the path is the one Python imports
            for point in points:
                yield Offer(point.name, point.value, f"{distribution.name} {distribution.version}")


def _offered_twice(kind: str, offers: Sequence[Offer]) -> str:
    who = " and ".join(sorted(offer.origin for offer in offers))
    return f'A connector of type "{kind}" is offered by {who}: uninstall all but one.'


def _load(offer: Offer) -> ConnectorSpec:
    remedy = f"Update {offer.origin}, or uninstall it."
    module, _, attribute = offer.target.partition(":")
    try:
        found = operator.attrgetter(attribute or "SPEC")(importlib.import_module(module))
    except Exception as error:  # importing somebody else's module can raise anything
        raise ConfigError(
            f'The connector of type "{offer.kind}" from {offer.origin} cannot be loaded from {offer.target}: '
            f"{type(error).__name__}: {error}. {remedy}"
        ) from error
    if not isinstance(found, ConnectorSpec):
        raise ConfigError(
            f'The connector of type "{offer.kind}" from {offer.origin} is no ConnectorSpec: {offer.target} is a '
            f"{type(found).__name__}. {remedy}"
        )
    if found.kind != offer.kind:
        raise ConfigError(
            f'{offer.origin} offers a connector under the name "{offer.kind}", but it calls itself "{found.kind}". '
            f"{remedy}"
        )
    return found
