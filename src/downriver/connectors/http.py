"""The one HTTP client of the connectors: an answer becomes JSON or an error that says what to do.

A call is made once and never again from here: when to try again is the engine's decision, and it reads it
off the error's class. The table (facts/bi-core.md §2.7, §8 rule 2):

============================================  ==================  ==========================
what happened                                 a read (GET)        a write (POST, PUT, DELETE)
============================================  ==================  ==========================
could not connect: nothing was sent           Transient           Transient
broken, reset or timed out after sending      Transient           InDoubt
425, 429: refused before any work             Transient           Transient (`Dialect` may add)
408, 5xx                                      Transient           InDoubt
501, 505, 511, any other 4xx                  Permanent           Permanent
3xx                                           Permanent           Permanent; 303: InDoubt
2xx, but HTML or otherwise not JSON           Transient           InDoubt
2xx larger than the transport takes           Permanent           InDoubt
============================================  ==================  ==========================

A 2xx page of HTML is a proxy's or a login page, or maintenance. A read may be tried again at no cost, and a
run that is being followed must not be given up because a gateway had a bad minute; a write may have passed
through. A 303 is how a server says "done, look over there".

Messages hold no header, no query string and none of the connection's own secrets. This module knows no
HTTP library (`transport.py` does), so that commands which call nobody start fast.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, TypeVar, overload
from urllib.parse import urlencode, urlsplit

import msgspec

from downriver import __version__
from downriver.connectors.redaction import cut, scrubber, secrets_in
from downriver.core.errors import CallError, InDoubt, Permanent, Transient
from downriver.core.model import Json

T = TypeVar("T")

USER_AGENT: Final = f"downriver/{__version__}"
RETRY_AFTER_CAP: Final = 3600.0
"""Seconds. A longer wait than this is asked for again when it is over."""
READS: Final = frozenset({"GET", "HEAD"})
REFUSED_UNWORKED: Final = frozenset({425, 429})
_NEVER_WORKS_5XX: Final = frozenset({501, 505, 511})


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it goes out. `timeout` is in seconds and covers it whole. `url` is encoded already."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    timeout: float = 30.0

    def __repr__(self) -> str:
        """Method and address without headers, body and query: those may hold secrets."""
        return f"Request({self.method} {self.url.partition('?')[0]})"


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. Header names are in lower case; `elapsed` is in seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    elapsed: float = 0.0

    @property
    def is_html(self) -> bool:
        """Whether this is a web page, by its type or its first character."""
        kind = self.headers.get("content-type", "").lower()
        return "html" in kind or ("xml" not in kind and self.body[:64].lstrip()[:1] == b"<")


class TransportError(Exception):
    """No answer, or no whole one. `reached` is False when the request surely never got to the server."""

    def __init__(self, reason: str, *, reached: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reached = reached


class AnswerTooLarge(TransportError):
    """The answer was cut off at the transport's limit."""


class Transport(Protocol):
    """Carries one request to a server and its answer back. Follows no redirect, keeps no cookie, repeats nothing."""

    async def send(self, request: Request) -> Response:
        """The answer, whatever its status; `TransportError` when there was none."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that was not a success, for a connector to put into better words."""

    what: str
    status: int
    code: str | None
    message: str | None


def read_json_error(response: Response) -> tuple[str | None, str | None]:
    """(code, message) out of the usual JSON error bodies: flat, or one level down under `error`."""
    try:
        body = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, _plain_words(response)
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    if not isinstance(body, dict):
        return None, None
    code = next((body[key] for key in ("code", "error", "id") if isinstance(body.get(key), str | int)), None)
    words = ("message", "error_description", "detail", "title", "reason")
    message = next((body[key] for key in words if body.get(key)), None)
    if message is not None and not isinstance(message, str):
        message = msgspec.json.encode(message).decode()  # validation errors: {"field": ["is wrong"]}
    return None if code is None else str(code), message


def _nothing_to_add(_: Refusal) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Dialect:
    """What is special about a vendor's HTTP.

    `headers` go out with every request. `read_error` finds (code, message) in an answer that was not a
    success. `explain` may give a sentence for such an answer that says what to change. `refused_unworked`
    are the statuses by which the vendor says that it did nothing, so that a write may be sent again.
    """

    headers: Mapping[str, str] = field(default_factory=lambda: {"Accept": "application/json"})
    read_error: Callable[[Response], tuple[str | None, str | None]] = read_json_error
    explain: Callable[[Refusal], str | None] = _nothing_to_add
    refused_unworked: frozenset[int] = REFUSED_UNWORKED


class HttpClient:
    """Calls to one configured site, with its credentials.

    `tool` is the site's name in sentences. `what` of every call is a phrase that fits after "could not":
    `run report 9d2da37fa91e`. `spend` is awaited before every request; there the engine keeps the budget.
    """

    __slots__ = (
        "_base",
        "_dialect",
        "_headers",
        "_headers_json",
        "_scrub",
        "_spend",
        "_timeout",
        "_transport",
        "tool",
    )

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        auth_headers: Mapping[str, str],
        *,
        tool: str,
        spend: Callable[[], Awaitable[None]] | None = None,
        timeout: float = 30.0,
        dialect: Dialect | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        """`secrets` are further texts that no error may show; those in `auth_headers` are found by itself."""
        self.tool = tool
        self._transport = transport
        self._base = base_url.rstrip("/")
        self._dialect = dialect or Dialect()
        self._headers = {"User-Agent": USER_AGENT, **self._dialect.headers, **auth_headers}
        self._headers_json = {**self._headers, "Content-Type": "application/json"}
        self._scrub = scrubber([*secrets, *secrets_in(auth_headers)])
        self._spend = spend
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"HttpClient({self.tool} at {urlsplit(self._base).hostname})"

    @overload
    async def get_json(self, path: str, params: Mapping[str, str] | None = None, *, what: str) -> Json: ...
    @overload
    async def get_json(
        self, path: str, params: Mapping[str, str] | None = None, *, what: str, shape: type[T]
    ) -> T: ...
    async def get_json(
        self, path: str, params: Mapping[str, str] | None = None, *, what: str, shape: type[T] | None = None
    ) -> T | Json:
        """GET `path` and decode the answer, as `shape` if one is given."""
        return self.decode("GET", await self.send("GET", path, params=params, what=what), what, shape)

    @overload
    async def post_json(self, path: str, payload: Json, *, what: str) -> Json: ...
    @overload
    async def post_json(self, path: str, payload: Json, *, what: str, shape: type[T]) -> T: ...
    async def post_json(self, path: str, payload: Json, *, what: str, shape: type[T] | None = None) -> T | Json:
        """POST `payload` as JSON and decode the answer, as `shape` if one is given."""
        body = msgspec.json.encode(payload)
        return self.decode("POST", await self.send("POST", path, body=body, what=what), what, shape)

    async def put(self, path: str, payload: Json = None, *, what: str) -> Response:
        """PUT `payload` as JSON. The answer's body is the caller's to decode: many have none."""
        return await self.send("PUT", path, body=msgspec.json.encode(payload), what=what)

    async def delete(self, path: str, *, what: str) -> Response:
        """DELETE `path`. The answer's body is the caller's to decode: most have none."""
        return await self.send("DELETE", path, what=what)

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        what: str,
    ) -> Response:
        """One request, made once. A 2xx answer, or the error of the module's table.

        `path` begins with one slash and is encoded already, so the credentials can go to no other host.
        `headers` add to or replace the usual ones; a body is sent as JSON unless they say otherwise.
        """
        if not path.startswith("/") or path.startswith("//"):
            raise ValueError(f"a path begins with one slash, unlike {path!r}")
        url = f"{self._base}{path}?{urlencode(params)}" if params else self._base + path
        ours = self._headers if body is None else self._headers_json
        if headers:
            ours = {**ours, **headers}
        if self._spend is not None:
            await self._spend()
        failure: TransportError
        try:
            response = await self._transport.send(Request(method, url, ours, body, self._timeout))
        except TransportError as error:
            failure = error
        else:
            if 200 <= response.status < 300:
                return response
            raise self._refused(method, response, what)
        # Outside the handler, so that no library error (they hold addresses and headers) hangs on ours.
        raise self._broken(method, failure, what)

    @overload
    def decode(self, method: str, response: Response, what: str, shape: None = None) -> Json: ...
    @overload
    def decode(self, method: str, response: Response, what: str, shape: type[T] | None) -> T: ...
    def decode(self, method: str, response: Response, what: str, shape: type[T] | None = None) -> T | Json:
        """The JSON of a 2xx answer to `method`, or the error the table gives for one that is no JSON."""
        try:
            decoded: T | Json = msgspec.json.decode(response.body, type=object if shape is None else shape)
        except msgspec.ValidationError as error:
            fault = f"with JSON of another form than documented ({error})"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if response.is_html:
                fault = f"with a web page{_title(response)} instead of JSON"
            else:
                fault = "with something that is not JSON" if response.body else "with nothing instead of JSON"
        else:
            return decoded
        raise self._misunderstood(method, response, what, fault)

    def _misunderstood(self, method: str, response: Response, what: str, fault: str) -> CallError:
        """The error for a 2xx answer that does not say what it must."""
        status = response.status
        words = f"{self.tool} answered {status} {self.clean(fault)}"
        detail = self.clean(_plain_words(response) or "") or None
        if method in READS:
            return Transient(
                f"Could not {what}: {words}. A proxy or a maintenance page may stand in between; "
                "if it stays, check the connection's base_url.",
                status=status,
                detail=detail,
            )
        return InDoubt(self._in_doubt(what, words), status=status, detail=detail)

    def _broken(self, method: str, error: TransportError, what: str) -> CallError:
        reason = self.clean(error.reason)
        if not error.reached:
            return Transient(f"Could not {what}: {self.tool} could not be reached ({reason}). Nothing was sent.")
        if method not in READS:
            return InDoubt(self._in_doubt(what, f"{reason} before {self.tool} had answered"))
        if isinstance(error, AnswerTooLarge):
            return Permanent(f"Could not {what}: {self.tool}'s answer is too large ({reason}).")
        return Transient(f"Could not {what}: {reason} before {self.tool} had answered.")

    def _refused(self, method: str, response: Response, what: str) -> CallError:
        """The error for an answer that is not a 2xx."""
        status = response.status
        if 300 <= status < 400:
            return self._redirected(method, response, what)
        code, message = self._dialect.read_error(response)
        code = self.clean(code or "") or None
        message = self.clean(message or "") or None
        words = f"{self.tool} answered {status}{f' {code}' if code else ''}{f': {message}' if message else ''}"
        unworked = status in self._dialect.refused_unworked
        passing = unworked or status == 408 or (status >= 500 and status not in _NEVER_WORKS_5XX)
        if passing and (unworked or method in READS):
            wait = retry_after(response.headers, time.time())
            asks = "" if wait is None else f" and asks to wait {wait:.0f} s"
            sentence = f"Could not {what}: {words}{asks}."
            return Transient(sentence, retry_after=wait, status=status, code=code, detail=message)
        if passing:
            return InDoubt(self._in_doubt(what, words), status=status, code=code, detail=message)
        advice = self._dialect.explain(Refusal(what, status, code, message)) or _advice(status)
        return Permanent(f"Could not {what}: {words}. {advice}", status=status, code=code, detail=message)

    def _redirected(self, method: str, response: Response, what: str) -> CallError:
        target = urlsplit(response.headers.get("location", ""))
        place = self.clean(target.hostname or "") or "another path of the same host"
        words = f"{self.tool} answered {response.status} and points to {place}"
        if response.status == 303 and method not in READS:
            return InDoubt(self._in_doubt(what, words), status=303)
        return Permanent(
            f"Could not {what}: {words}; redirects are not followed with credentials. "
            "Check the connection's base_url, and whether a login proxy stands in between.",
            status=response.status,
        )

    def _in_doubt(self, what: str, why: str) -> str:
        return (
            f"The request to {what} may have taken effect: {why}. Look for it at {self.tool} before sending it again."
        )

    def clean(self, text: str) -> str:
        """`text` on one line, without this connection's secrets, cut to what an error may carry."""
        return cut(self._scrub(text))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds a `Retry-After` header asks for: a number or an HTTP date, within 0 … RETRY_AFTER_CAP.

    A date is read against the answer's own `Date`, so that a wrong clock here does not matter; else
    against `now`, in seconds since the epoch. None when there is no header, or none that can be read.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            sent = headers.get("date")
            base = parsedate_to_datetime(sent).timestamp() if sent else now
            seconds = parsedate_to_datetime(text).timestamp() - base
        except (ValueError, TypeError, OverflowError):
            return None
    if seconds != seconds:  # noqa: PLR0124 - "nan" is a float to Python
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_CAP)


def _advice(status: int) -> str:
    match status:
        case 401:
            return "The credentials were not accepted: check the connection's, and that they have not been revoked."
        case 403:
            return "The credentials are good but may not do that: ask for the permission, or use others."
        case 404 | 410:
            return "It does not exist there, or these credentials may not see it: check the reference."
        case 407 | 511:
            return "A proxy in between wants credentials of its own: check the proxy settings."
        case _:
            return "Sending the same again would not help."


def _plain_words(response: Response) -> str | None:
    """What a person would read in an answer that is no JSON: a page's title, or the text itself."""
    if response.is_html:
        return f"a web page{_title(response)}"
    return response.body[:4096].decode("utf-8", "replace").strip() or None


def _title(response: Response) -> str:
    found = re.search(rb"<title[^>]*>([^<]{1,200})", response.body[:8192], re.IGNORECASE)
    return f' titled "{cut(found[1].decode("utf-8", "replace"), 80)}"' if found else ""
