"""The ASGI application: webhooks in front, FastAPI behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

import downriver
from downriver.core.errors import DownriverError, NotFound, StoreError
from downriver.web.answers import ErrorPage, SafeHeaders, problem
from downriver.web.api import api_router
from downriver.web.auth import ApiGuard
from downriver.web.body import DEFAULT_LIMITS, Limits
from downriver.web.health import Health
from downriver.web.ingress import PREFIX, Ingress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from pydantic import SecretStr
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from downriver.sources.base import Source
    from downriver.store.db import Store
    from downriver.web.health import Readiness

_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def build_app(
    *,
    sources: Mapping[str, Source],
    store: Store,
    poke: Callable[[str], None],
    readiness: Callable[[], Awaitable[Readiness]],
    api_token: SecretStr | None,
    clock: Callable[[], datetime],
    limits: Limits = DEFAULT_LIMITS,
) -> ASGIApp:
    """Everything that answers over HTTP.

    `sources` by their names in the address; `poke(mailbox)` after each new event (must not raise or
    block); `readiness` says whether the service can do its work; `api_token` opens the API to callers
    on other machines (None: to nobody there); `clock` gives the time of arrival, in UTC.
    """
    ingress = Ingress(sources=sources, store=store, poke=poke, clock=clock, limits=limits)
    rest = SafeHeaders(ApiGuard(_rest(store, readiness, api_token), token=api_token))

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await ingress(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return ErrorPage(dispatch)


def _rest(store: Store, readiness: Callable[[], Awaitable[Readiness]], api_token: SecretStr | None) -> FastAPI:
    app = FastAPI(
        title="Downriver",
        version=downriver.__version__,
        summary="What dbt runs and dashboards' refreshes did.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # both fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(api_router(store))
    app.router.routes.extend(Health(readiness, api_token).routes())
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DownriverError, _downriver_problem)
    return app


def _response(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(problem(status, code, detail), status, headers, "application/problem+json")


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "refused")
    detail = (
        f"There is nothing at {request.url.path}."
        if error.status_code == 404
        else f"{request.method} is not for {request.url.path}."
        if error.status_code == 405
        else str(error.detail)
    )
    return _response(error.status_code, code, detail, error.headers)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _response(422, "invalid", " ".join(_complaint(item) for item in error.errors()))


def _complaint(item: Any) -> str:
    return f"`{item['loc'][-1]}`: {item['msg']}."


async def _downriver_problem(_request: Request, error: Exception) -> Response:
    """An error of our own, whose text is meant for people."""
    if isinstance(error, NotFound):
        return _response(404, "not_found", str(error))
    if isinstance(error, StoreError):
        return _response(503, "store", str(error), {"retry-after": "5"})
    raise error
