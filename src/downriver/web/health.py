"""`/healthz`: the process answers. `/readyz`: it can take events and works them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from downriver.core.errors import StoreError
from downriver.web.auth import denial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic import SecretStr
    from starlette.requests import Request

_KEPT_SECONDS: Final = 1.0
"""How long a good answer is reused: anybody may ask, and each asking may write to the database."""
_BAD_KEPT_SECONDS: Final = 0.1
"""A bad one is reused for less: whoever waits for the service to start asks often, and wants to know soon."""
PATIENCE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: `store`, `source:analytics`, `connection:mode`. `detail` says how it stands."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether events can be stored and every mailbox is worked; the checks that say so."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Every check holds."""
        return all(check.ok for check in self.checks)


class Health:
    """The two health routes. Outsiders see which check fails; why, only those who may read the API."""

    def __init__(
        self,
        readiness: Callable[[], Awaitable[Readiness]],
        token: SecretStr | None,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._readiness = readiness
        self._token = token
        self._patience = patience
        self._latest: tuple[float, Readiness] | None = None
        self._asking = asyncio.Lock()

    def routes(self) -> list[Route]:
        """`/healthz` and `/readyz`, GET and HEAD."""
        return [
            Route("/healthz", self._healthz, methods=["GET"], include_in_schema=False),
            Route("/readyz", self._readyz, methods=["GET"], include_in_schema=False),
        ]

    async def _healthz(self, _request: Request) -> Response:
        return _json({"ok": True}, 200)

    async def _readyz(self, request: Request) -> Response:
        readiness = await self.look()
        client = request.client.host if request.client else None
        insider = denial(client, request.scope["headers"], self._token) is None
        checks = [
            {"name": check.name, "ok": check.ok} | ({"detail": check.detail} if insider else {})
            for check in readiness.checks
        ]
        return _json({"ok": readiness.ok, "checks": checks}, 200 if readiness.ok else 503)

    async def look(self) -> Readiness:
        """How it stands, at most a second ago."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if self._latest is not None:
                at, known = self._latest
                if loop.time() - at < (_KEPT_SECONDS if known.ok else _BAD_KEPT_SECONDS):
                    return known
            try:
                async with asyncio.timeout(self._patience):
                    readiness = await self._readiness()
            except StoreError as error:
                readiness = Readiness((Check("store", ok=False, detail=str(error)),))
            except TimeoutError:
                detail = f"The checks did not end within {self._patience:g} s."
                readiness = Readiness((Check("checks", ok=False, detail=detail),))
            self._latest = (loop.time(), readiness)
            return readiness


def _json(value: object, status: int) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
