"""Who may read the API: callers on this machine, and those with the token.

"On this machine" is judged narrowly, because what listens on loopback is also in reach of every web
page the user has open, and of the reverse proxy in front:

- the peer is a loopback address, and no header says that a proxy passes somebody else on;
- `Host` names this machine (a page on a foreign name that was rebound to 127.0.0.1 sends that name);
- a browser does not say that another site makes the call.
"""

from __future__ import annotations

import hmac
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from downriver.web.answers import PROBLEM, answer, problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import SecretStr
    from starlette.types import ASGIApp, Receive, Scope, Send

_PROXIED: Final = frozenset(
    (b"forwarded", b"x-real-ip", b"via", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip")
)
_PROXIED_PREFIX: Final = b"x-forwarded-"
_LOCAL_NAMES: Final = frozenset(("localhost", "127.0.0.1", "::1"))

NO_TOKEN: Final = (
    "Without a token this is for callers on the same machine only, and no token is set. Set DOWNRIVER_API_TOKEN "  # noqa: S105
    "in the service's environment, restart it, and send `Authorization: Bearer <token>`."
)
TOKEN_NEEDED: Final = (
    "Without a token this is for callers on the same machine only: send `Authorization: Bearer <token>` "  # noqa: S105
    "with the value of DOWNRIVER_API_TOKEN."
)
WRONG_TOKEN: Final = "The bearer token is not the value of DOWNRIVER_API_TOKEN."  # noqa: S105

RawHeader = tuple[bytes, bytes]


def denial(client: str | None, headers: Iterable[RawHeader], token: SecretStr | None) -> str | None:
    """Why a caller may not read: a sentence, or None when it may.

    `client` is the peer's address (None: not an internet socket), `headers` have lower-case names.
    """
    raw = list(headers)
    if is_local(client, raw):
        return None
    expected = token.get_secret_value().encode() if token is not None else b""
    given = _bearer(raw)
    if not expected:
        return NO_TOKEN
    if given is None:
        return TOKEN_NEEDED
    return None if hmac.compare_digest(given, expected) else WRONG_TOKEN


def is_local(client: str | None, headers: Iterable[RawHeader]) -> bool:
    """Whether the call surely comes from a program on this machine, on its own behalf."""
    if client is None or not _is_loopback(client):
        return False
    hosts: list[bytes] = []
    for name, value in headers:
        if name in _PROXIED or name.startswith(_PROXIED_PREFIX):
            return False
        if name == b"host":
            hosts.append(value)
        elif _another_site(name, value):
            return False
    return len(hosts) == 1 and _names_this_machine(b"//" + hosts[0])


def _another_site(name: bytes, value: bytes) -> bool:
    """Whether this header is a browser's word that a page from elsewhere makes the call."""
    if name == b"sec-fetch-site":
        return value not in (b"same-origin", b"none")
    return name == b"origin" and not _names_this_machine(value)


def _is_loopback(client: str) -> bool:
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _names_this_machine(url: bytes) -> bool:
    try:
        parts = urlsplit(url.decode("ascii"))
        _ = parts.port  # raises for what is no port
    except ValueError:
        return False
    return parts.hostname in _LOCAL_NAMES and "@" not in parts.netloc


def _bearer(headers: Iterable[RawHeader]) -> bytes | None:
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, rest = values[0].strip().partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else None


class ApiGuard:
    """ASGI middleware: everything under `prefix` only for those who may read."""

    def __init__(self, app: ASGIApp, *, token: SecretStr | None, prefix: str = "/api/") -> None:
        self._app = app
        self._token = token
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve `scope`, or refuse it with 401."""
        if scope["type"] == "http" and scope["path"].startswith(self._prefix):
            client = scope.get("client")
            why = denial(client[0] if client else None, scope["headers"], self._token)
            if why is not None:
                challenge = (b"www-authenticate", b'Bearer realm="downriver"')
                await answer(send, 401, problem(401, "unauthorized", why), PROBLEM, [challenge])
                return
        await self._app(scope, receive, send)
