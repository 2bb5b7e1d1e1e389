"""The control API: JSON under `/_sandbox/` on every port, so that other processes can drive the sandbox.

=======  ==================================  ======================================================
GET      /_sandbox                           the stand-ins: addresses, credentials, counts
POST     /_sandbox/reset                     everything as at the start
GET      /_sandbox/<stand-in>/requests       what it saw: counts, and the newest requests (`?limit=`)
GET      /_sandbox/<stand-in>/faults         armed faults, and how often each kind has fired
POST     /_sandbox/<stand-in>/faults         arm a fault (`faults.Fault` as JSON) → `{"id": …}`
DELETE   /_sandbox/<stand-in>/faults[/<id>]  disarm all, or one
…        /_sandbox/<stand-in>/…              the stand-in's own controls, listed in its module
=======  ==================================  ======================================================

There is no authentication: the sandbox holds nothing real and listens on loopback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from downriver.sandbox.faults import Armed, Fault
from downriver.sandbox.frontdoor import CONTROL, Refused, StandIn, reply

T = TypeVar("T")


async def decoded(request: Request, kind: type[T]) -> T:
    """The JSON body as `kind`; a 400 that names the wrong field otherwise. No body counts as `{}`."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refusal(400, str(error)) from error


def refusal(status: int, message: str) -> Refused:
    """An answer of the control API (never of a vendor) that says what was wrong."""
    return Refused(reply({"error": message}, status))


def number(request: Request, name: str, default: int) -> int:
    """A whole number out of the query string."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise refusal(400, f"?{name}= wants a whole number, not {text!r}") from None


class Control:
    """The control API over a set of stand-ins."""

    def __init__(self, standins: Sequence[StandIn]) -> None:
        self._standins = {standin.name: standin for standin in standins}

    async def __call__(self, request: Request) -> Response:
        """Answer one request under `/_sandbox`."""
        rest = tuple(part for part in request.url.path.removeprefix(CONTROL).split("/") if part)
        try:
            return await self._route(request, rest)
        except Refused as refused:
            return refused.response

    async def _route(self, request: Request, rest: tuple[str, ...]) -> Response:
        match (request.method, *rest):
            case ("GET",):
                return reply({name: _overview(standin) for name, standin in self._standins.items()})
            case ("POST", "reset"):
                for standin in self._standins.values():
                    standin.reset()
                return reply({"reset": sorted(self._standins)})
            case (_, name, *more) if name in self._standins:
                standin = self._standins[name]
                answer = await self._shared(request, standin, tuple(more))
                if answer is None:
                    answer = await standin.control(request, tuple(more))
                if answer is not None:
                    return answer
        raise refusal(404, f"no control {request.method} {request.url.path}; GET {CONTROL} lists the stand-ins")

    async def _shared(self, request: Request, standin: StandIn, rest: tuple[str, ...]) -> Response | None:
        """The controls every stand-in has."""
        match (request.method, *rest):
            case ("GET", "requests"):
                return reply(_requests(standin, number(request, "limit", 100)))
            case ("GET", "faults"):
                armed = [_armed(armed) for armed in standin.faults.armed]
                return reply({"armed": armed, "fired": dict(standin.faults.fired)})
            case ("POST", "faults"):
                fault = await decoded(request, Fault)
                return reply({"id": standin.faults.arm(fault)}, 201)
            case ("DELETE", "faults"):
                standin.faults.clear()
                return reply({"armed": []})
            case ("DELETE", "faults", fault_id):
                if not fault_id.isdecimal() or not standin.faults.disarm(int(fault_id)):
                    raise refusal(404, f"no fault {fault_id} is armed (never was, or it has fired its times)")
                return reply({"disarmed": int(fault_id)})
        return None


def _overview(standin: StandIn) -> dict[str, object]:
    return {**standin.describe(), "requests": standin.log.count(), "faults_armed": len(standin.faults.armed)}


def _requests(standin: StandIn, limit: int) -> dict[str, object]:
    log = standin.log
    newest = list(log.recent)[-limit:] if limit > 0 else []
    return {
        "total": log.count(),
        "in_flight": log.in_flight,
        "peak_in_flight": log.peak_in_flight,
        "counts": list(log.rows()),
        "recent": newest,
    }


def _armed(armed: Armed) -> dict[str, object]:
    return {"id": armed.id, "fired": armed.fired, "fault": armed.fault}
