"""The client: the table of its module, its sentences, and what it keeps to itself."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downriver.connectors.http import (
    RETRY_AFTER_CAP,
    AnswerTooLarge,
    Dialect,
    HttpClient,
    Refusal,
    Request,
    Response,
    TransportError,
    read_json_error,
    retry_after,
)
from downriver.connectors.redaction import cut, scrubber, without_sql
from downriver.core.errors import CallError, InDoubt, Permanent, Transient
from downriver.testing import Exchange, ScriptedTransport

PAIR = base64.b64encode(b"api-token:top/secret+word").decode()
AUTH = {"Authorization": f"Basic {PAIR}"}
PAGE = {"content-type": "text/html"}


def client(*script: Exchange, **options: Any) -> tuple[HttpClient, ScriptedTransport]:
    transport = ScriptedTransport(*script)
    return HttpClient(transport, "https://bi.example.test/base/", AUTH, tool="Lighthouse", **options), transport


async def ask(made: HttpClient, method: str, shape: Any = None) -> object:
    match method:
        case "GET":
            return await made.get_json("/thing", what="read the thing", shape=shape)
        case "POST":
            return await made.post_json("/thing", {"a": 1}, what="start the thing", shape=shape)
        case "PUT":
            return await made.put("/thing", {"a": 1}, what="change the thing")
    return await made.delete("/thing", what="stop the thing")


async def call(method: str, shape: Any = None, **exchange: Any) -> CallError:
    made, transport = client(Exchange(method, "/base/thing", **exchange))
    with pytest.raises(CallError) as caught:
        await ask(made, method, shape)
    assert len(transport.requests) == 1, "nothing is ever sent twice from here"
    return caught.value


WRITES = ("POST", "PUT", "DELETE")
READS_AGAIN = (408, 425, 429, 500, 502, 503, 504, 520, 529)


@pytest.mark.parametrize("status", READS_AGAIN)
async def test_a_read_may_be_tried_again(status: int) -> None:
    error = await call("GET", status=status, body={"message": "not now"})
    assert type(error) is Transient
    assert str(error) == f"Could not read the thing: Lighthouse answered {status}: not now."
    assert (error.status, error.detail, error.retry_after) == (status, "not now", None)


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520])
async def test_a_write_that_met_trouble_is_in_doubt(method: str, status: int) -> None:
    error = await call(method, status=status)
    assert type(error) is InDoubt
    assert "may have taken effect" in str(error)


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("status", [425, 429])
async def test_a_write_refused_before_any_work_may_be_tried_again(method: str, status: int) -> None:
    error = await call(method, status=status, headers={"Retry-After": "30"})
    assert type(error) is Transient
    assert error.retry_after == 30
    assert str(error).endswith(f"Lighthouse answered {status} and asks to wait 30 s.")


@pytest.mark.parametrize("method", ["GET", *WRITES])
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 407, 409, 410, 413, 422, 451, 501, 505, 511])
async def test_the_rest_is_for_good(method: str, status: int) -> None:
    error = await call(method, status=status, body={"code": "E17", "message": "no"})
    assert type(error) is Permanent
    assert (error.status, error.code, error.detail) == (status, "E17", "no")
    assert f"Lighthouse answered {status} E17: no. " in str(error)


@pytest.mark.parametrize("method", ["GET", *WRITES])
async def test_what_never_left_may_be_sent_again(method: str) -> None:
    error = await call(method, broken="before")
    assert type(error) is Transient
    assert str(error).endswith("Lighthouse could not be reached (the connection was closed). Nothing was sent.")


async def test_what_broke_off_after_sending() -> None:
    assert type(await call("GET", broken="after")) is Transient
    for method in WRITES:
        assert type(await call(method, broken="after")) is InDoubt


@pytest.mark.parametrize("status", [200, 203])
async def test_a_web_page_is_no_answer(status: int) -> None:
    page = b"<html><head><title>Please\n sign in</title></head></html>"
    error = await call("GET", status=status, body=page, headers=PAGE)
    assert type(error) is Transient
    assert f'Lighthouse answered {status} with a web page titled "Please sign in" instead of JSON.' in str(error)
    assert type(await call("POST", status=status, body=page, headers=PAGE)) is InDoubt
    assert type(await call("POST", status=status, body=page)) is InDoubt


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"nonsense", b"{} {}"])
async def test_what_is_not_json_is_no_answer(body: bytes) -> None:
    assert type(await call("GET", body=body)) is Transient
    assert type(await call("POST", body=body)) is InDoubt


async def test_json_of_another_form_names_the_place_and_not_the_value() -> None:
    class Shape(msgspec.Struct):
        token: str

    for method, kind in (("GET", Transient), ("POST", InDoubt)):
        error = await call(method, Shape, body={"token": 170717})
        assert type(error) is kind
        assert "of another form than documented (Expected `str`, got `int` - at `$.token`)" in str(error)


@pytest.mark.parametrize("status", [300, 301, 302, 304, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirects_are_named_by_host_alone(method: str, status: int) -> None:
    error = await call(method, status=status, headers={"Location": "https://sso.example.test/in?code=once"})
    assert type(error) is Permanent
    assert "points to sso.example.test;" in str(error)
    assert "once" not in str(error)


async def test_see_other_means_that_the_work_was_done() -> None:
    there = {"Location": "/elsewhere"}
    assert type(await call("POST", status=303, headers=there)) is InDoubt
    error = await call("GET", status=303, headers=there)
    assert type(error) is Permanent
    assert "another path of the same host" in str(error)


class Raising:
    def __init__(self, error: TransportError) -> None:
        self.error = error

    async def send(self, request: Request) -> Response:
        raise self.error


async def test_an_answer_that_is_too_large() -> None:
    made = HttpClient(Raising(AnswerTooLarge("17 bytes", reached=True)), "https://x.test", AUTH, tool="X")
    with pytest.raises(Permanent, match="too large"):
        await made.get_json("/x", what="read")
    with pytest.raises(InDoubt):
        await made.post_json("/x", {}, what="write")


async def test_errors_hang_on_nothing_that_knows_more() -> None:
    made = HttpClient(Raising(TransportError("broke", reached=True)), "https://x.test", AUTH, tool="X")
    with pytest.raises(Transient) as caught:
        await made.get_json("/x", what="read")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# ---------------------------------------------------------------------- what goes out


async def test_a_request_as_it_goes_out() -> None:
    spent: list[int] = []

    async def spend() -> None:
        spent.append(len(transport.requests))

    made, transport = client(
        Exchange("GET", "/base/a", body=[1]),
        Exchange("POST", "/base/b", 202, {"ok": True}),
        Exchange("PUT", "/base/c", 204, b""),
        Exchange("DELETE", "/base/d", 204, b""),
        Exchange("POST", "/base/e", body=b"<ok/>", headers={"content-type": "application/xml"}),
        spend=spend,
        timeout=7.0,
        dialect=Dialect(headers={"Accept": "application/hal+json"}),
    )
    assert await made.get_json("/a", {"q": "x y&z", "n": "1"}, what="read") == [1]
    assert await made.post_json("/b", {"ä": None}, what="write") == {"ok": True}
    assert (await made.put("/c", {"x": 1}, what="change")).status == 204
    assert (await made.delete("/d", what="remove")).body == b""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await made.send("POST", "/e", body=b"a=1", headers=form, what="sign in")).body == b"<ok/>"
    first, second, third, fourth, fifth = transport.requests
    assert first.url == "https://bi.example.test/base/a?q=x+y%26z&n=1"
    assert first.body is None
    assert first.timeout == 7.0
    assert first.headers["Accept"] == "application/hal+json"
    assert first.headers["Authorization"] == AUTH["Authorization"]
    assert first.headers["User-Agent"].startswith("downriver/")
    assert "Content-Type" not in first.headers
    assert json.loads(second.body or b"") == {"ä": None}
    assert second.headers["Content-Type"] == third.headers["Content-Type"] == "application/json"
    assert fourth.body is None
    assert fifth.headers["Content-Type"] == form["Content-Type"]
    assert spent == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("path", ["thing", "//evil.test/x", "https://evil.test/x", ""])
async def test_credentials_go_to_no_other_host(path: str) -> None:
    made, transport = client()
    with pytest.raises(ValueError, match="one slash"):
        await made.get_json(path, what="read")
    assert transport.requests == []


# ---------------------------------------------------------------------- sentences and dialects


async def test_a_dialect_explains_and_says_what_was_not_worked() -> None:
    def explain(refusal: Refusal) -> str | None:
        return f"Turn the lamp on ({refusal.what})." if refusal.code == "dark" else None

    dialect = Dialect(explain=explain, refused_unworked=frozenset({429, 503}))
    made, _ = client(
        Exchange("GET", "/base/x", 404, {"code": "dark"}),
        Exchange("GET", "/base/x", 404, {"code": "other"}),
        Exchange("POST", "/base/x", 503, {}, headers={"Retry-After": "5"}),
        dialect=dialect,
    )
    with pytest.raises(Permanent, match=r"404 dark\. Turn the lamp on \(read it\)\."):
        await made.get_json("/x", what="read it")
    with pytest.raises(Permanent, match=r"404 other\. It does not exist there"):
        await made.get_json("/x", what="read it")
    with pytest.raises(Transient) as caught:
        await made.post_json("/x", {}, what="write")
    assert caught.value.retry_after == 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"id": "not_found", "message": "gone"}, ("not_found", "gone")),
        ({"error": {"code": "PowerBINotAuthorized", "message": "no"}}, ("PowerBINotAuthorized", "no")),
        ({"error": "invalid_client", "error_description": "bad"}, ("invalid_client", "bad")),
        ({"message": {"base": ["is wrong"]}}, (None, '{"base":["is wrong"]}')),
        ({"code": 409093}, ("409093", None)),
        ({"code": None, "message": ""}, (None, None)),
        ([], (None, None)),
        (b"plain words", (None, "plain words")),
        (b"<html><title>502 Bad Gateway</title>", (None, 'a web page titled "502 Bad Gateway"')),
        (b"", (None, None)),
        (b"[" * 50_000, (None, "[" * 4096)),
    ],
)
def test_error_bodies(body: Any, expected: tuple[str | None, str | None]) -> None:
    assert read_json_error(Exchange("GET", "/", 400, body).response()) == expected


# ---------------------------------------------------------------------- Retry-After

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("30", 30.0),
        (" 1.5 ", 1.5),
        ("-5", 0.0),
        ("99999999", RETRY_AFTER_CAP),
        ("inf", RETRY_AFTER_CAP),
        ("nan", None),
        ("soon", None),
        ("", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Sun, 99 Mar 2026 99:00:00 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, NOW.timestamp()) == seconds


def test_a_date_counts_from_the_answers_own_clock() -> None:
    headers = {
        "retry-after": "Wed, 01 Jan 2020 00:02:00 GMT",
        "date": "Wed, 01 Jan 2020 00:00:00 GMT",
    }
    assert retry_after(headers, NOW.timestamp()) == 120
    assert retry_after({}, NOW.timestamp()) is None


@given(st.text())
def test_no_header_can_break_it(value: str) -> None:
    wait = retry_after({"retry-after": value, "date": value}, 0.0)
    assert wait is None or 0 <= wait <= RETRY_AFTER_CAP


# ---------------------------------------------------------------------- what is kept back


@pytest.mark.parametrize("form", ["api-token", "top/secret+word", "top%2Fsecret%2Bword", PAIR, AUTH["Authorization"]])
async def test_secrets_are_blotted_out_in_every_form(form: str) -> None:
    for body in ({"message": f"bad {form} here"}, f"<title>bad {form} here</title>".encode(), form.encode()):
        error = await call("GET", status=400, body=body)
        assert form not in f"{error} {error.detail} {error.code}"
        assert "[redacted]" in str(error)


async def test_a_secret_across_the_cut_does_not_survive_in_part() -> None:
    error = await call("GET", status=400, body={"message": "x" * 290 + "top/secret+word" + "y" * 50})
    assert "top/se" not in str(error)


async def test_further_secrets_may_be_named() -> None:
    made, _ = client(Exchange("GET", "/base/x", 400, {"message": 'the "quoted\\" key'}), secrets=['"quoted\\"'])
    with pytest.raises(Permanent) as caught:
        await made.get_json("/x", what="read")
    assert "quoted" not in str(caught.value)


def test_representations_hold_no_credentials() -> None:
    made, _ = client()
    request = Request("GET", "https://x.test/a?key=word", AUTH, b"body")
    assert repr(request) == "Request(GET https://x.test/a)"
    assert repr(made) == "HttpClient(Lighthouse at bi.example.test)"
    assert "body" not in repr(Response(200, {}, b"the body is long"))[20:]


@given(st.text(max_size=400), st.text(min_size=4, max_size=20), st.text(max_size=400))
def test_nothing_scrubbed_remains(before: str, secret: str, after: str) -> None:
    assert secret not in scrubber([secret])(f"{before}{secret}{after}") or secret in "[redacted]"


@given(st.text(max_size=1000), st.integers(min_value=10, max_value=300))
def test_cut_is_one_printable_line_within_its_limit(text: str, limit: int) -> None:
    line = cut(text, limit)
    assert len(line) <= limit
    assert line.isprintable()


@pytest.mark.parametrize(
    ("message", "source", "shown"),
    [
        ("no such table: orders", "SELECT * FROM orders", "no such table: orders"),
        ("syntax error in SELECT * FROM orders", "SELECT * FROM orders", "syntax error in [SQL]"),
        ('near "SELECT * FROM orders", it broke', "SELECT * FROM orders", "near [SQL] it broke"),
        ("ERROR: x\nLINE 3: WHERE ssn = 7\n        ^", "a b c", "ERROR: x"),
        ("bad call()", "call()", "bad [SQL]"),
        ("SELECT a\n  FROM b", "SELECT  a FROM\nb", "[SQL]"),
        ("", "SELECT 1", ""),
    ],
)
def test_sql_is_taken_out_of_messages(message: str, source: str, shown: str) -> None:
    assert without_sql(message, [source]) == shown


@given(st.lists(st.sampled_from(["select", "x", "from", "'Ada'", "where", "id", "="]), min_size=3, max_size=12))
def test_a_whole_statement_never_shows(words: list[str]) -> None:
    sql = " ".join(words)
    assert sql not in without_sql(f"it failed: {sql} and more", [sql])
