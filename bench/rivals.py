"""What we are measured beside, each a process: `python -m bench.rivals noop|ingress|recipe|once …`.

noop     a Starlette route that does nothing, on our uvicorn settings
ingress  our web side with its store (every ack durable), without the engine
recipe   the common script: FastAPI, verify, POST to Mode, nothing kept
once     what Debian's `webhook` program runs per delivery: POST to Mode (it has verified the signature itself)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import sys
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.world import KEY, report

_BODY = b'{"parameters": {}}'


def _serve(app: Any) -> None:
    import uvicorn
    import uvloop

    from downriver.web.server import server_config

    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    print(f"at http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    server = uvicorn.Server(server_config(app, host="127.0.0.1", port=0))
    uvloop.run(server.serve([sock]))


def noop() -> None:
    """Serve the route that does nothing."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def nothing(_: Request) -> Response:
        return Response(b"{}", media_type="application/json")

    _serve(Starlette(routes=[Route("/hooks/a", nothing, methods=["POST"])]))


def ingress(home: str) -> None:
    """Serve our web side alone."""
    from pydantic import SecretStr

    from downriver.sources.registry import source_spec
    from downriver.store.db import Store
    from downriver.web.app import build_app
    from downriver.web.health import Readiness

    async def ready() -> Readiness:
        return Readiness(())

    kind = source_spec("dbt_platform")
    source = kind.build("a", kind.config(webhook_secret=SecretStr(KEY)))
    store = Store.open(f"sqlite:///{Path(home) / 'ingress.db'}")
    _serve(
        build_app(
            sources={"a": source},
            store=store,
            poke=lambda _: None,
            readiness=ready,
            api_token=None,
            clock=lambda: datetime.now(UTC),
        )
    )


def recipe() -> None:
    """Serve the script people write."""
    import aiohttp
    from fastapi import FastAPI, Request, Response

    app = FastAPI()
    sessions: list[aiohttp.ClientSession] = []

    async def hook(request: Request) -> Response:
        body = await request.body()
        signature = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, request.headers.get("authorization", "")):
            return Response(status_code=403)
        if not sessions:
            sessions.append(aiohttp.ClientSession(headers=_mode_headers()))
        async with sessions[0].post(_runs(json.loads(body)), data=_BODY) as answer:
            return Response(status_code=200 if answer.status < 300 else 502)

    # Types of names that are local here: FastAPI could not look them up as text.
    hook.__annotations__ = {"request": Request}
    app.add_api_route("/hooks/a", hook, methods=["POST"])
    _serve(app)


def once(body: str) -> None:
    """POST for one delivery."""
    wanted = urllib.request.Request(_runs(json.loads(body)), _BODY, _mode_headers())
    with urllib.request.urlopen(wanted, timeout=10):
        pass


def _runs(event: Any) -> str:
    token = report(int(event["data"]["jobId"]))
    return f"{os.environ['MODE_URL']}/api/{os.environ['MODE_WORKSPACE']}/reports/{token}/runs"


def _mode_headers() -> dict[str, str]:
    pair = f"{os.environ['MODE_TOKEN']}:{os.environ['MODE_SECRET']}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode(), "Content-Type": "application/json"}


if __name__ == "__main__":
    {"noop": noop, "ingress": ingress, "recipe": recipe, "once": once}[sys.argv[1]](*sys.argv[2:])
