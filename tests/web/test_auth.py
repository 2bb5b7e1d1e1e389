"""Who may read the API."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from downriver.web.auth import NO_TOKEN, TOKEN_NEEDED, WRONG_TOKEN, denial, is_local

TOKEN = SecretStr("planted-api-token")
HOST = (b"host", b"127.0.0.1:8321")


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:8321", b"127.0.0.1", b"127.0.0.1:8321", b"[::1]", b"[::1]:80"]
)
def test_callers_on_this_machine_may(client, host):
    assert denial(client, [(b"host", host)], None) is None
    assert denial(client, [(b"host", host)], TOKEN) is None


@pytest.mark.parametrize(
    "client",
    [
        None,
        "",
        "10.0.0.1",
        "192.168.0.7",
        "0.0.0.0",
        "::",
        "fe80::1%eth0",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "localhost",
        "128.0.0.1",
        "testclient",
    ],
)
def test_callers_elsewhere_may_not(client):
    assert denial(client, [HOST], None) == NO_TOKEN
    assert denial(client, [HOST], TOKEN) == TOKEN_NEEDED


@pytest.mark.parametrize(
    "name",
    [
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-real-ip",
        b"via",
        b"true-client-ip",
        b"cf-connecting-ip",
    ],
)
def test_what_a_proxy_on_this_machine_passes_on_is_not_local(name):
    assert not is_local("127.0.0.1", [HOST, (name, b"127.0.0.1")])
    assert not is_local("127.0.0.1", [(name, b""), HOST])


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"evil.example:8321",
        b"127.0.0.1.evil.example",
        b"localhost.evil.example",
        b"",
        b":8321",
        b"10.0.0.1",
        b"user@localhost",
        b"localhost:x",
        b"evil.example#localhost",
        b"[::1",
        b"\xff",
        b"127.1",
        b"2130706433",
        b"localhost.",
    ],
)
def test_another_name_for_this_machine_is_not_believed(host):
    assert not is_local("127.0.0.1", [(b"host", host)])


def test_no_host_or_two_hosts_are_not_believed():
    assert not is_local("127.0.0.1", [])
    assert not is_local("127.0.0.1", [HOST, HOST])


@pytest.mark.parametrize(
    ("header", "local"),
    [
        ((b"sec-fetch-site", b"same-origin"), True),
        ((b"sec-fetch-site", b"none"), True),
        ((b"sec-fetch-site", b"cross-site"), False),
        ((b"sec-fetch-site", b"same-site"), False),
        ((b"origin", b"http://127.0.0.1:8321"), True),
        ((b"origin", b"http://localhost"), True),
        ((b"origin", b"https://evil.example"), False),
        ((b"origin", b"null"), False),
    ],
)
def test_a_page_from_elsewhere_in_the_users_browser_is_not_local(header, local):
    assert is_local("127.0.0.1", [HOST, header]) is local


@pytest.mark.parametrize(
    "value", [b"Bearer planted-api-token", b"bearer  planted-api-token ", b"BEARER planted-api-token"]
)
def test_the_token_opens_from_anywhere(value):
    assert denial("10.0.0.1", [(b"authorization", value)], TOKEN) is None
    assert denial("127.0.0.1", [(b"authorization", value), (b"x-forwarded-for", b"1.2.3.4")], TOKEN) is None
    assert denial(None, [(b"authorization", value)], TOKEN) is None


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([(b"authorization", b"Bearer planted-api-toke")], WRONG_TOKEN),
        ([(b"authorization", b"Bearer planted-api-token2")], WRONG_TOKEN),
        ([(b"authorization", b"Bearer PLANTED-API-TOKEN")], WRONG_TOKEN),
        ([(b"authorization", b"Bearer \xff\xfe")], WRONG_TOKEN),
        ([(b"authorization", b"Bearer ")], WRONG_TOKEN),
        ([(b"authorization", b"planted-api-token")], TOKEN_NEEDED),
        ([(b"authorization", b"Basic planted-api-token")], TOKEN_NEEDED),
        ([(b"authorization", b"")], TOKEN_NEEDED),
        ([(b"authorization", b"Bearer planted-api-token")] * 2, TOKEN_NEEDED),
        ([(b"x-api-key", b"planted-api-token")], TOKEN_NEEDED),
    ],
)
def test_nothing_but_the_token_opens(headers, why):
    assert denial("10.0.0.1", headers, TOKEN) == why


@pytest.mark.parametrize("value", [b"Bearer ", b"Bearer", b"Bearer x"])
@pytest.mark.parametrize("token", [None, SecretStr("")])
def test_no_token_set_means_no_token_fits(value, token):
    assert denial("10.0.0.1", [(b"authorization", value)], token) == NO_TOKEN
    assert "DOWNRIVER_API_TOKEN" in NO_TOKEN


def test_a_token_beyond_ascii():
    assert denial("10.0.0.1", [(b"authorization", "Bearer schlüssel".encode())], SecretStr("schlüssel")) is None


@given(st.text(), st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), max_size=4))
def test_nobody_else_gets_in_and_nothing_raises(client, headers):
    if b"Bearer planted-api-token" not in [value for _, value in headers] and not client.startswith(("127.", "::")):
        assert denial(client, headers, TOKEN) is not None


async def test_on_the_wire(serve):
    async with serve(token="planted-api-token") as service:
        for path in ("/api/v1/events", "/api/v1/openapi.json", "/api/v1/nothing"):
            answer = await service.call("GET", path, host="downriver.example")
            assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        outside = {"x-forwarded-for": "52.45.144.63"}
        assert (await service.call("GET", "/api/v1/events", outside)).status == 401
        allowed = await service.call(
            "GET", "/api/v1/events", {**outside, "authorization": "Bearer planted-api-token"}
        )
        assert allowed.status == 200
        assert (await service.call("GET", "/api/v1/events")).status == 200
        assert (await service.call("GET", "/api/v1/events", host="localhost")).status == 200
        assert "planted" not in repr(service.logs) + repr([answer.body for answer in service.answers])
