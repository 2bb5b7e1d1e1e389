"""What a source is: its spec and its two verbs.

A source knows one kind of sender. It says whether a delivery is genuine and what it means; it stores
nothing, calls nobody and never decides what follows: that is the ingress's and the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from downriver.core.model import Event


@dataclass(frozen=True, slots=True)
class Verified:
    """The delivery is genuine. `key_fingerprint` says which of the configured keys fitted.

    It is a position (`key 1 of 2`), never a value derived from a key: it tells an operator during a
    rotation which key is in use, and tells a reader of the database nothing about the key.
    """

    key_fingerprint: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The delivery is not genuine, or cannot be shown to be.

    `code` is a short word for listings (`signature_missing`), `detail` a sentence that says what was
    found and what to do. Neither holds the header, the body or a key: both are stored, and sent back to
    whoever knocked.
    """

    code: str
    detail: str


class Source(Protocol):
    """One configured source. Both verbs are quick and free of I/O: the ingress calls them in its event loop."""

    @property
    def name(self) -> str:
        """Its name in downriver.yml, the last part of its webhook address."""
        ...

    def verify(self, headers: Mapping[str, str], body: bytes) -> Verified | Refused:
        """Is the delivery genuine? `headers` have lower-case names, `body` is exactly what arrived. Never raises."""
        ...

    def parse(self, body: bytes, received_at: datetime) -> Event:
        """What the delivery says. Raises BadInput (with its `code`) for a body that cannot be used.

        Also called long after arrival, to work a stored event: the same bytes give the same event.
        """
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request as the sender would make it: headers (lower-case names) and the exact body."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What a kind of source declares; docs, config, schema and pages are made from it.

    `config` validates the source's own keys of downriver.yml (all but `name` and `type`), `build` makes
    the source from its name and that. `test_delivery` makes a signed test event (`downriver send-test`)
    from the config, an event id and the time; it is recognised as a test and refreshes nothing.
    """

    kind: str
    title: str
    config: type[BaseModel]
    build: Callable[[str, BaseModel], Source]
    test_delivery: Callable[[BaseModel, str, datetime], Delivery]
