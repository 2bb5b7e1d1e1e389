"""The transport that reaches real servers: aiohttp behind `http.Transport`.

aiohttp is imported here alone. It takes a third of a second to import, so the composition root imports
this module only when a service or a call really starts.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from downriver.connectors.http import AnswerTooLarge, Request, Response, TransportError

ANSWER_CAP: Final = 16 << 20
"""Bytes of one answer, unpacked."""
CONNECT_SECONDS: Final = 10.0
KEEP_ALIVE_SECONDS: Final = 4.0
"""Common servers (uvicorn, Node, Apache) close an idle connection after 5 s. A POST that meets such a
closing is in doubt, so ours are given up before."""


class _NotAgain(Exception):
    """aiohttp would send a GET, PUT or DELETE once more after this failure; the engine alone decides that."""

    def __init__(self, failure: aiohttp.ClientError) -> None:
        super().__init__()
        self.failure = failure


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Middleware: one `send` is one request on the wire, whatever its method."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # never got there; aiohttp does not repeat these
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = error
    raise _NotAgain(failure)


class AiohttpTransport:
    """One pool of keep-alive connections for everything a process calls.

    The session is made inside the running loop by the first `send` and belongs to that loop; `aclose` ends
    it. Redirects are not followed, cookies not kept, `~/.netrc` not read. `trust_env`: the proxies of
    `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, read once for each host.
    """

    def __init__(
        self,
        *,
        connections: int = 100,
        connect_timeout: float = CONNECT_SECONDS,
        answer_cap: int = ANSWER_CAP,
        trust_env: bool = True,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`connections` open at once at most; times in seconds; `ssl_context` for an own certificate authority."""
        self._connections = connections
        self._connect_timeout = connect_timeout
        self._answer_cap = answer_cap
        self._trust_env = trust_env
        self._ssl = ssl_context
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}
        self._proxies: dict[tuple[str, str], URL | None] = {}

    async def send(self, request: Request) -> Response:
        """The answer, whatever its status; `TransportError` says whether the request can have arrived."""
        session = self._session
        if session is None or self._loop is not asyncio.get_running_loop():
            session = self._open()
        timeout = self._timeouts.get(request.timeout) or self._timeout(request.timeout)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        # An aiohttp error holds the request's headers. It is put into words, and what is raised is raised
        # outside the handler, so that no traceback carries the credentials along.
        failure: TransportError
        try:
            answer = await session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.body,
                timeout=timeout,
                proxy=self._proxy(request.url) if self._trust_env else None,
                allow_redirects=False,
            )
            try:
                body = await self._read(answer)
            finally:
                answer.release()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Response(answer.status, headers, body, loop.time() - begun)
        except TransportError as error:
            failure = error
        except _NotAgain as error:
            failure = _in_words(error.failure)
        except (aiohttp.ClientError, OSError) as error:
            failure = _in_words(error)
        raise failure

    async def aclose(self) -> None:
        """Close every connection. A later `send` would open new ones."""
        session, self._session, self._loop = self._session, None, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is not None:
            raise RuntimeError("this transport belongs to another event loop: make one for each loop")
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                ssl=self._ssl if self._ssl is not None else True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_once,),
            # aiohttp's own reading of the environment costs two threads a request and, where ~/.netrc
            # names the host, refuses a request that carries its own Authorization.
            trust_env=False,
        )
        return self._session

    def _timeout(self, total: float) -> aiohttp.ClientTimeout:
        # Connecting always ends first, so that a time-out of the whole surely came after it.
        connect = min(self._connect_timeout, total / 2)
        return self._timeouts.setdefault(total, aiohttp.ClientTimeout(total=total, connect=connect))

    def _proxy(self, url: str) -> URL | None:
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc)
        if key not in self._proxies:
            self._proxies[key] = _environment_proxy(parts.scheme, parts.hostname or "")
        return self._proxies[key]

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        length = answer.content_length
        if length is not None and length > self._answer_cap:
            answer.close()
            raise AnswerTooLarge(f"{length:,} bytes, {self._answer_cap:,} are taken", reached=True)
        if length is not None and "content-encoding" not in answer.headers:
            return await answer.read()
        parts: list[bytes] = []
        size = 0
        async for part in answer.content.iter_any():  # unpacked as it comes: the cap holds for bombs too
            size += len(part)
            if size > self._answer_cap:
                answer.close()
                raise AnswerTooLarge(f"more than {self._answer_cap:,} bytes", reached=True)
            parts.append(part)
        return b"".join(parts)


def _environment_proxy(scheme: str, host: str) -> URL | None:
    """The proxy the environment names for a host, by the standard library's reading of it."""
    proxies = urllib.request.getproxies()
    chosen = proxies.get(scheme) or proxies.get("all")
    if not chosen or urllib.request.proxy_bypass(host):
        return None
    return URL(chosen if "://" in chosen else f"http://{chosen}")


def _in_words(error: Exception) -> TransportError:
    """What went wrong, and whether the request can have reached the server. No address, no header."""
    words = _before_it_left(error)
    if words is not None:
        return TransportError(words, reached=False)
    match error:
        case TimeoutError():
            words = "the time was over"
        case aiohttp.ClientPayloadError():
            words = "the answer broke off"
        case aiohttp.ClientResponseError():
            words = "the answer was not HTTP"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            words = "the connection was closed"
        case _:
            words = f"the connection failed ({type(error).__name__})"
    return TransportError(words, reached=True)


def _before_it_left(error: Exception) -> str | None:
    """The words for a failure to connect; None when the request may have gone out."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "connecting took too long"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused to connect: {error.status}"
        case aiohttp.InvalidURL():
            return "the address is not valid"
        case aiohttp.ClientConnectorError():
            return _not_connected(error)
    return None


def _not_connected(error: aiohttp.ClientConnectorError) -> str:
    place = f"{error.host}:{error.port}"
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
            return f"the certificate of {place} is not accepted: {reason}"
        case aiohttp.ClientConnectorSSLError():
            return f"no TLS connection to {place}"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy {place} does not answer"
    return f"no connection to {place}: {error.os_error.strerror or type(error.os_error).__name__}"
