"""The webhook door over the wire: what is taken, what is refused, what is left behind."""

import asyncio
import json
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from downriver.core.errors import BadInput
from downriver.core.model import EventKind
from downriver.sources.base import Verified
from downriver.store.events import body_of
from downriver.web.body import Limits

MIB = 1024 * 1024


# -- taken ----------------------------------------------------------------------------------------


async def test_the_captured_delivery_is_stored_as_it_came_and_acknowledged(service, kit, tmp_path):
    answer = await service.call(
        "POST",
        "/hooks/analytics",
        {
            "authorization": kit.capture_signature,
            "content-type": "application/json",
            "user-agent": "dbt-webhooks",
            "cookie": "planted-cookie",
            "x-api-key": "planted-api-key",
        },
        kit.capture,
    )
    assert answer.status == 200
    assert answer.json() == {"status": "accepted", "event": "wev_2QSUzWMSv40ow7s8n8TfVPVnYua"}
    # Durable when answered: another process sees it.
    other = sqlite3.connect(tmp_path / "downriver.db")
    source, event_id, kind, run_id, body, key, headers, received = other.execute(
        "SELECT source, event_id, kind, run_id, body, key, headers, received_at FROM event"
    ).fetchone()
    other.close()
    assert (source, event_id, kind, run_id) == (
        "analytics",
        "wev_2QSUzWMSv40ow7s8n8TfVPVnYua",
        "run_finished",
        "155144666",
    )
    assert body == kit.capture
    assert key == "key 2 of 2"
    assert json.loads(headers) == {"content-type": "application/json", "user-agent": "dbt-webhooks"}
    assert received == int(kit.now.timestamp()) * 1_000_000 + 123456
    assert service.pokes == ["source:analytics"]
    assert await service.rejections() == []


async def test_a_redelivery_is_acknowledged_and_changes_nothing(service, kit):
    first = await service.post(kit.event("wev_1"))
    again = await service.post(kit.event("wev_1"))
    other = await service.post(kit.event("wev_1", runStatus="Errored", runStatusCode=20))
    assert [answer.status for answer in (first, again, other)] == [200, 200, 200]
    assert [answer.json()["status"] for answer in (first, again, other)] == ["accepted", "duplicate", "duplicate"]
    (row,) = await service.events()
    assert await service.store.read(lambda conn: body_of(conn, row.seq)) == kit.event("wev_1")
    assert service.pokes == ["source:analytics"]


async def test_the_same_event_fifty_times_at_once_is_one_row_and_fifty_acknowledgements(service, kit):
    answers = await asyncio.gather(*(service.post(kit.event("wev_1")) for _ in range(50)))
    assert [answer.status for answer in answers] == [200] * 50
    assert sorted(answer.json()["status"] for answer in answers) == ["accepted"] + ["duplicate"] * 49
    assert len(await service.events()) == 1
    assert service.pokes == ["source:analytics"]


async def test_many_different_events_at_once_all_arrive(service, kit):
    names = [f"wev_{number}" for number in range(120)]
    answers = await asyncio.gather(*(service.post(kit.event(name)) for name in names))
    assert {answer.json()["status"] for answer in answers} == {"accepted"}
    assert {row.event_id for row in await service.events()} == set(names)


async def test_test_and_unknown_events_are_acknowledged_and_shown(service, kit):
    sample = kit.event("wev_t", accountId=1, jobId="123", runId="12345", projectId="167194")
    assert (await service.post(sample)).json() == {"status": "test", "event": "wev_t"}
    assert (await service.post(sample)).json() == {"status": "test", "event": "wev_t"}
    assert (await service.post(kit.event("wev_u", eventType="job.run.paused"))).json()["status"] == "kept"
    assert (await service.post(kit.event("wev_s", eventType="job.run.started"))).json()["status"] == "accepted"
    rows = {row.event_id: (row.kind, row.type, row.state) for row in await service.events()}
    assert rows == {
        "wev_t": (EventKind.TEST, "job.run.completed", "done"),
        "wev_u": (EventKind.OTHER, "job.run.paused", "done"),
        "wev_s": (EventKind.RUN_STARTED, "job.run.started", "new"),
    }


async def test_a_slash_at_the_end_and_escapes_in_the_path_do_not_matter(service, kit):
    for number, path in enumerate(("/hooks/analytics/", "/hooks/%61nalytics", "/hooks/analytics?x=1")):
        body = kit.event(f"wev_{number}")
        answer = await service.call("POST", path, {"authorization": kit.sign(body)}, body)
        assert answer.status == 200


async def test_white_space_that_http_allows_around_the_signature_does_not_matter(service, kit):
    body = kit.event()
    async with service.wire() as wire:
        head = f"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nAuthorization: \t {kit.sign(body)} \t\r\n"
        await wire.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert (await wire.answer()).status == 200


async def test_a_body_in_pieces_and_in_chunks(service, kit):
    body = kit.event("wev_pieces", pad=300_000)
    async with service.wire() as wire:
        head = f"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nauthorization: {kit.sign(body)}\r\n"
        await wire.send(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 50_000):
            await wire.send(body[at : at + 50_000])
            await asyncio.sleep(0.001)
        assert (await wire.answer()).json()["status"] == "accepted"
        body = kit.event("wev_chunks")  # and the same connection goes on
        head = f"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nauthorization: {kit.sign(body)}\r\n"
        await wire.send(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 100):
            piece = body[at : at + 100]
            await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await wire.send(b"0\r\n\r\n")
        assert (await wire.answer()).json()["status"] == "accepted"


async def test_requests_sent_without_waiting_are_answered_in_order(service, kit):
    def request(name):
        body = kit.event(name)
        head = f"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nauthorization: {kit.sign(body)}\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async with service.wire() as wire:
        await wire.send(b"".join(request(f"wev_{number}") for number in range(5)))
        assert [(await wire.answer()).json()["event"] for _ in range(5)] == [f"wev_{n}" for n in range(5)]


# -- refused: the signature -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda signature: None, "signature_missing"),
        (lambda signature: b"", "signature_empty"),
        (lambda signature: signature[:-1] + (b"0" if signature[-1:] != b"0" else b"1"), "signature_wrong"),
        (lambda signature: signature[:40], "signature_length"),
        (lambda signature: signature.upper(), "signature_upper_case"),
        (lambda signature: b"z" * 64, "signature_not_hex"),
        (lambda signature: b"\xff\xfe" + signature[2:], "signature_not_ascii"),
        (lambda signature: b"Bearer " + signature, "signature_scheme"),
        (lambda signature: signature + b"\r\nauthorization: " + signature, "signature_repeated"),
    ],
)
async def test_a_wrong_signature_is_401_and_leaves_a_record_without_body_or_header(service, kit, change, code):
    body = kit.event("wev_f", jobName="planted-job")
    header = change(kit.sign(body).encode())
    line = b"" if header is None else b"authorization: " + header + b"\r\n"
    async with service.wire() as wire:
        await wire.send(
            b"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 52.45.144.63\r\n"
            + line
            + b"content-length: %d\r\n\r\n" % len(body)
            + body
        )
        answer = await wire.answer()
        assert answer.status == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"]
        assert answer.json()["code"] == code
        # The connection serves on: the body was read.
        good = kit.event("wev_g")
        head = f"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nauthorization: {kit.sign(good)}\r\n"
        await wire.send(f"{head}content-length: {len(good)}\r\n\r\n".encode() + good)
        assert (await wire.answer()).status == 200
    assert [row.event_id for row in await service.events()] == ["wev_g"]
    (row,) = await service.rejections()
    assert (row.source, row.reason, row.status, row.size) == ("analytics", code, 401, len(body))
    assert (row.remote, row.received_at) == ("127.0.0.1 (for 52.45.144.63)", kit.now)
    assert row.detail == answer.json()["detail"]
    assert len(row.fingerprint) == 16
    assert "planted" not in repr(row) + repr(service.logs)


async def test_the_right_signature_over_the_same_json_written_anew_is_refused(service, kit):
    body = kit.event()
    rewritten = json.dumps(json.loads(body), indent=1).encode()
    answer = await service.call("POST", "/hooks/analytics", {"authorization": kit.sign(body)}, rewritten)
    assert answer.status == 401
    assert answer.json()["code"] == "signature_wrong"


async def test_a_flood_of_forgeries_is_refused_whole_and_recorded_in_part(serve, kit):
    async with serve(limits=Limits(rejections_at_once=5, rejections_per_second=0.001)) as service:
        answers = await asyncio.gather(*(service.post(kit.event(), key="forged") for _ in range(40)))
        assert {answer.status for answer in answers} == {401}
        assert len(await service.rejections()) == 5
        assert (await service.post(kit.event())).status == 200


# -- refused: the body ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"not json, planted", "not_json"),
        (b'{"eventId": "planted", }', "not_json"),
        (b'{"eventId":"\xff\xfeplanted"}', "not_utf8"),
        (b'["planted"]', "not_an_object"),
        (b'{"planted": 1}', "event_id_missing"),
        (b'{"eventId":"planted\\u0000"}', "event_id_unusable"),
        (b'{"planted":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "too_deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_good_signature_over_an_unusable_body_is_400_and_recorded(service, kit, body, code):
    answer = await service.post(body)
    assert (answer.status, answer.json()["code"]) == (400, code)
    assert b"planted" not in answer.body
    (row,) = await service.rejections()
    assert (row.reason, row.status, row.size, row.detail) == (code, 400, len(body), answer.json()["detail"])
    assert "planted" not in repr(row) + repr(service.logs)
    assert await service.events() == []
    assert service.pokes == []


async def test_two_mebibytes_are_taken_and_one_byte_more_is_not(service, kit):
    largest = kit.event("wev_large", pad=2 * MIB)
    assert len(largest) == 2 * MIB
    assert (await service.post(largest)).status == 200
    answer = await service.post(kit.event("wev_larger", pad=2 * MIB + 1))
    assert (answer.status, answer.json()["code"]) == (413, "body_too_big")
    assert [row.event_id for row in await service.events()] == ["wev_large"]
    (row,) = await service.rejections()
    assert (row.reason, row.status, row.size, row.fingerprint) == ("body_too_big", 413, 2 * MIB + 1, "")


@pytest.mark.parametrize("expect", [b"", b"expect: 100-continue\r\n"])
@pytest.mark.parametrize("length", [b"2097153", b"999999999999999999"])
async def test_a_body_announced_too_large_is_refused_before_it_is_sent(service, length, expect):
    async with service.wire() as wire:
        await wire.send(
            b"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\n" + expect + b"content-length: " + length + b"\r\n\r\n"
        )
        answer = await asyncio.wait_for(wire.answer(), 3)
        assert answer.status == 413
        assert answer.headers["connection"] == "close"
        assert await wire.closed()
    assert [row.size for row in await service.rejections()] == [int(length)]


async def test_an_unannounced_body_is_read_to_the_limit_and_no_further(service):
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    async with service.wire() as wire:
        await wire.send(b"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        asking = asyncio.create_task(wire.answer())
        sent = 0
        while not asking.done() and sent < 64 * MIB:
            try:
                await asyncio.wait_for(wire.send(chunk), 2)
            except (ConnectionError, TimeoutError):
                break
            sent += 0x10000
            await asyncio.sleep(0)
        answer = await asyncio.wait_for(asking, 3)
        assert answer.status == 413
        assert sent < 16 * MIB, "went on reading after the answer"
    (row,) = await service.rejections()
    assert 2 * MIB < row.size < 3 * MIB


async def test_more_bytes_than_announced_are_not_part_of_the_body(service, kit):
    body = kit.event()
    async with service.wire() as wire:
        head = f"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nauthorization: {kit.sign(body)}\r\n"
        await wire.send(f"{head}content-length: {len(body) - 10}\r\n\r\n".encode() + body)
        # The rest is no HTTP request: the server says so and closes, perhaps before we have answered.
        assert (await wire.answer()).status in (400, 401)
    assert await service.events() == []


@pytest.mark.parametrize("line", [b"content-length: -1", b"content-length: 1_0", b"content-length: x",
                                  b"content-length: 5\r\ntransfer-encoding: chunked"])  # fmt: skip
async def test_a_length_that_is_none_is_refused_by_the_server(service, line):
    async with service.wire() as wire:
        await wire.send(b"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\n" + line + b"\r\n\r\nhello")
        assert (await wire.answer()).status in (400, 401)
    assert await service.events() == []


async def test_a_sender_that_leaves_midway_leaves_nothing(service, kit):
    body = kit.event()
    async with service.wire() as wire:
        head = f"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\nauthorization: {kit.sign(body)}\r\n"
        await wire.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:-1])
    while not service.logs:
        await asyncio.sleep(0.01)
    assert [entry["event"] for entry in service.logs] == ["delivery cut off by its sender"]
    assert await service.events() == []
    assert (await service.post(body)).json()["status"] == "accepted"


async def test_a_slow_body_is_ended_in_time_and_hurts_no_other(serve, kit):
    async with serve(limits=Limits(body_seconds=0.4)) as service:
        loop = asyncio.get_running_loop()

        async def dribble(delay):
            await asyncio.sleep(delay)
            async with service.wire() as wire:
                began = loop.time()
                await wire.send(b"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n")

                async def feed():
                    while True:
                        await wire.send(b" ")
                        await asyncio.sleep(0.02)

                feeding = asyncio.create_task(feed())
                answer = await wire.answer()
                feeding.cancel()
                assert await wire.closed()
                return answer, loop.time() - began

        async def quick():
            for number in range(10):
                assert (await service.post(kit.event(f"wev_{number}"))).status == 200
                await asyncio.sleep(0.05)

        *slow, _ = await asyncio.gather(dribble(0), dribble(0.15), dribble(0.15), quick())
        for answer, seconds in slow:
            assert (answer.status, answer.json()["code"]) == (408, "body_too_slow")
            assert answer.headers["connection"] == "close"
            assert 0.35 < seconds < 2
        assert len(await service.events()) == 10
        assert [row.reason for row in await service.rejections()] == ["body_too_slow"] * 3


async def test_too_many_large_bodies_at_once_are_told_to_come_again(serve, kit):
    async with serve(limits=Limits(buffered_bytes=400_000)) as service:
        async with service.wire() as first:
            await first.send(b"POST /hooks/analytics HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
            await first.send(b" " * 390_000)
            await asyncio.sleep(0.05)
            answer = await service.post(kit.event(pad=200_000))
            assert (answer.status, answer.json()["code"]) == (503, "too_busy")
            assert answer.headers["retry-after"]
            assert (await service.post(kit.event("wev_small"))).status == 200, "small ones still pass"
        await asyncio.sleep(0.05)
        assert (await service.post(kit.event("wev_2", pad=200_000))).status == 200


# -- other requests -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/hooks/", "/hooks/nobody", "/hooks/analytics/more", "/hooks/ANALYTICS",
                                  "/hooks/..%2fapi", "/hooks/%00", "/hooks/%ff"])  # fmt: skip
async def test_an_unknown_source_is_a_constant_404(service, kit, path):
    body = kit.event()
    answer = await service.call("POST", path, {"authorization": kit.sign(body)}, body)
    assert (answer.status, answer.body) == (404, b"There is no such webhook address here.\n")
    assert await service.rejections() == []
    assert (await service.call("GET", path)).status == 404


async def test_looking_at_the_address_says_what_it_is(service):
    answer = await service.call("GET", "/hooks/analytics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "webhook address of source analytics" in answer.body.decode()
    head = await service.call("HEAD", "/hooks/analytics")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_405(service, method):
    answer = await service.call(method, "/hooks/analytics")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


# -- the store fails ------------------------------------------------------------------------------


async def failing(service, kit):
    """A genuine event is told to come again; a forged one is refused all the same."""
    answer = await service.post(kit.event("wev_late"))
    assert (answer.status, answer.json()["code"]) == (503, "not_stored")
    assert answer.headers["retry-after"]
    assert (await service.post(kit.event("wev_forged"), key="forged")).status == 401
    assert service.pokes == []
    assert any(entry["event"].startswith("event not stored") for entry in service.logs)


async def recovered(service, kit):
    """The redelivery of the same event is taken."""
    assert (await service.post(kit.event("wev_late"))).json()["status"] == "accepted"
    assert [row.event_id for row in await service.events()] == ["wev_late"]
    assert service.pokes == ["source:analytics"]


async def pragma(service, text):
    """Set something on the writer's own connection, as trouble from outside would come: between transactions."""
    with service.store._writer.raw_connection() as raw:
        raw.execute(text).close()


async def test_a_full_disk_is_503_and_the_redelivery_is_taken(service, kit):
    await pragma(service, "PRAGMA max_page_count=1")  # SQLite then says SQLITE_FULL, as on a full disk
    body = kit.event("wev_late", pad=500_000)
    answer = await service.post(body)
    assert (answer.status, answer.json()["code"]) == (503, "not_stored")
    assert "disk is full" in repr(service.logs)
    assert service.pokes == []
    await pragma(service, "PRAGMA max_page_count=1000000")
    assert (await service.post(body)).json()["status"] == "accepted"
    assert [row.event_id for row in await service.events()] == ["wev_late"]


async def test_a_read_only_database_is_503_and_the_redelivery_is_taken(service, kit):
    await pragma(service, "PRAGMA query_only=ON")
    await failing(service, kit)
    assert "read-only" in repr(service.logs)
    await pragma(service, "PRAGMA query_only=OFF")
    await recovered(service, kit)


@pytest.mark.slow  # waits out the five seconds that a lock is waited for
async def test_a_database_locked_by_another_process_is_503_within_the_senders_patience(service, kit, tmp_path):
    other = sqlite3.connect(tmp_path / "downriver.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = asyncio.get_running_loop().time()
    answer = await service.post(kit.event("wev_late"))
    assert answer.status == 503
    assert asyncio.get_running_loop().time() - began < 9, "dbt gives up after 10 s"
    other.execute("ROLLBACK")
    other.close()
    await recovered(service, kit)


async def test_a_closed_store_is_503(service, kit):
    await asyncio.to_thread(service.store.close)
    await failing(service, kit)


# -- what is told, what is kept silent ------------------------------------------------------------


class Broken:
    """A source whose code fails, with the header and the body at hand."""

    name = "broken"

    def __init__(self, fails_in):
        self.fails_in = fails_in

    def verify(self, headers, body):
        if self.fails_in == "verify":
            raise RuntimeError("verify failed")
        return Verified("key 1 of 1")

    def parse(self, body, received_at):
        if self.fails_in == "bad":
            raise BadInput("This body is of no use.", code="of_no_use")
        raise RuntimeError("parse failed")


@pytest.mark.parametrize("where", ["verify", "parse"])
async def test_a_failure_of_ours_is_a_bare_500_and_the_trace_is_in_the_log_alone(serve, kit, where):
    async with serve(sources={"broken": Broken(where)}) as service:
        answer = await service.call("POST", "/hooks/broken", {"authorization": "planted-header"}, b"planted-body")
        assert answer.status == 500
        assert b"Traceback" not in answer.body
        assert b"failed" not in answer.body
        (entry,) = service.logs
        assert f"{where} failed" in entry["trace"]
        assert "planted" not in repr(entry)
        assert (await service.call("GET", "/hooks/broken")).status == 200, "it goes on serving"


async def test_codes_of_any_source_reach_answer_and_record(serve):
    async with serve(sources={"broken": Broken("bad")}) as service:
        answer = await service.call("POST", "/hooks/broken", {}, b"x")
        assert (answer.status, answer.json()["code"]) == (400, "of_no_use")
        assert [row.reason for row in await service.rejections()] == ["of_no_use"]


async def test_nothing_secret_is_left_anywhere(service, kit, tmp_path, caplog):
    caplog.set_level(0)
    forged = kit.event("wev_f", jobName="planted-forged-body")
    wrong = kit.sign(forged, "planted-other-key")
    await service.call("POST", "/hooks/analytics", {"authorization": wrong}, forged)
    await service.call("POST", "/hooks/analytics", {"authorization": f"Bearer {wrong}"}, forged)
    broken = b'{"planted-broken-body": '
    await service.post(broken)
    good = kit.event("wev_g")
    await service.post(good, headers={"cookie": "planted-cookie", "x-secret": "planted-x-secret"})
    await service.post(good)
    await pragma(service, "PRAGMA query_only=ON")
    await service.post(kit.event("wev_late"))
    await pragma(service, "PRAGMA query_only=OFF")
    answers = b"".join(answer.raw + answer.body for answer in service.answers).decode()
    logs = repr(service.logs) + caplog.text
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("downriver.db*"))
    assert [answer.status for answer in service.answers] == [401, 401, 400, 200, 200, 503]
    assert b"wev_g" in stored, "the search looks in the right place"
    for secret in (kit.key, "planted", wrong, kit.sign(good), kit.sign(broken), "test-secret"):
        assert secret not in answers
        assert secret not in logs
        assert secret.encode() not in stored


async def test_every_answer_carries_the_safe_headers_and_no_banner(service, kit):
    await service.post(kit.event())
    await service.post(kit.event(), key="forged")
    await service.post(b"{}")
    await service.post(kit.event(pad=2 * MIB + 1))
    for method, path in (("GET", "/hooks/analytics"), ("GET", "/hooks/no"), ("PUT", "/hooks/analytics"),
                         ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/api/v1/events"), ("GET", "/"),
                         ("GET", "/api/v1/nothing"), ("GET", "/api/v1/openapi.json")):  # fmt: skip
        await service.call(method, path)
    await service.call("GET", "/api/v1/events", host="evil.example")
    assert {answer.status for answer in service.answers} == {200, 400, 401, 404, 405, 413}
    for answer in service.answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_changed_delivery_gets_in(service, kit, data):
    body, signature = kit.event(), kit.sign(kit.event())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(body) - 1))
        body = body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]
    else:
        at = data.draw(st.integers(0, 63))
        new = data.draw(st.sampled_from("0123456789abcdefABCDEFg-").filter(lambda c: c != signature[at]))
        signature = signature[:at] + new + signature[at + 1 :]
    answer = await service.call("POST", "/hooks/analytics", {"authorization": signature}, body)
    assert answer.status == 401
    assert await service.events() == []
