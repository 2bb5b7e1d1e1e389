"""Kinds of configuration values that connectors share. Their errors never repeat what was put in."""

from __future__ import annotations

from datetime import date
from math import isfinite
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, JsonValue, SecretStr

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def _one_word(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and (not text or not text.isprintable() or " " in text):
        raise ValueError("must be one word without blanks or line ends: was it copied whole, and no more than that?")
    return value


def _site(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http"):
        raise ValueError("must be an address that begins with https://")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be an address alone, without credentials, query or fragment")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError("must begin with https://: over http:// the credentials could be read on the way")
    return value.rstrip("/")


def _as_json(value: object) -> object:
    match value:
        case date():
            return value.isoformat()
        case float() if not isfinite(value):
            raise ValueError("holds a number that JSON cannot carry (infinity or not-a-number)")
        case dict():
            return {key: _as_json(one) for key, one in value.items()}
        case list():
            return [_as_json(one) for one in value]
    return value


SecretWord = Annotated[SecretStr, BeforeValidator(_one_word)]
"""A token, key or password as it is copied from a vendor's page: one word."""

SiteAddress = Annotated[str, AfterValidator(_site)]
"""Where a site is: https, or http on loopback; no slash at the end."""

JsonParameters = Annotated[dict[str, JsonValue], BeforeValidator(_as_json)]
"""Named JSON values. YAML's dates become the text they were written as."""
