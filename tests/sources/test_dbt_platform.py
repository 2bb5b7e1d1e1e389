"""The dbt platform's webhooks: signature and meaning, against the facts of facts/dbt.md §1."""

import hashlib
import hmac
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from downriver.core.errors import BadInput, ConfigError
from downriver.core.model import EventKind, RunStatus
from downriver.sources.base import Delivery, Refused, Verified
from downriver.sources.dbt_platform import SPEC, DbtPlatform, DbtPlatformConfig, sign
from downriver.sources.registry import SOURCES, source_spec
from downriver.testing.source_contract import SourceContract

AT = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
KEY = "test-secret"
# The real capture of facts/dbt.md §1.2, and its known answer under the key above.
BODY = (
    b'{"accountId":66847,"eventId":"wev_2QSUzWMSv40ow7s8n8TfVPVnYua","timestamp":"2023-05-29T07:52:18.06660617Z",'
    b'"eventType":"job.run.completed","webhookId":"wsu_2QGRb6TLFTOlBXsWjL4kb0RHTWc","webhookName":"Flask app",'
    b'"data":{"jobId":"278164","jobName":"Snowflake Project Job","runId":"155144666","environmentId":"187998",'
    b'"environmentName":"Deployment 1.4","dbtVersion":"1.4.6","projectName":"Snowflake 2","projectId":"241251",'
    b'"runStatus":"Success","runStatusCode":10,"runStatusMessage":"None",'
    b'"runReason":"Kicked off from UI by analyst@example.com","runStartedAt":"2023-05-29T07:51:56Z",'
    b'"runFinishedAt":"2023-05-29T07:52:15Z"}}'
)
SIGNATURE = "79417f2e7f64320e154012b08018d53b72bd2def05f92bee3558c39a9d1ab37b"


def source(*keys):
    return DbtPlatform("analytics", [SecretStr(key) for key in keys or (KEY,)])


def parse(body):
    return source().parse(body if isinstance(body, bytes) else json.dumps(body).encode(), AT)


def changed(data=(), drop=(), **top):
    """The capture with some fields changed or dropped."""
    body = json.loads(BODY)
    body.update(top)
    body["data"].update(data)
    for name in drop:
        body.pop(name, None)
        body["data"].pop(name, None)
    return body


class TestContract(SourceContract):
    def make(self, *keys):
        return source(*keys)

    def delivery(self, key):
        return Delivery({"authorization": sign(SecretStr(key), BODY), "user-agent": "x"}, BODY)


# -- signature ------------------------------------------------------------------------------------


def test_the_known_answer_verifies():
    assert len(BODY) == 621
    assert source().verify({"authorization": SIGNATURE}, BODY) == Verified("key 1 of 1")


def test_rotation_takes_either_key_and_says_which():
    rotating = source("the-new-one", KEY)
    assert rotating.verify({"authorization": SIGNATURE}, BODY) == Verified("key 2 of 2")
    newer = hmac.new(b"the-new-one", BODY, hashlib.sha256).hexdigest()
    assert rotating.verify({"authorization": newer}, BODY) == Verified("key 1 of 2")


def test_the_key_is_used_as_utf8():
    signature = hmac.new("schlüssel-鍵".encode(), BODY, hashlib.sha256).hexdigest()
    assert isinstance(source("schlüssel-鍵").verify({"authorization": signature}, BODY), Verified)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "signature_missing"),
        ("", "signature_empty"),
        ("   ", "signature_empty"),
        (SIGNATURE.upper(), "signature_upper_case"),
        (SIGNATURE[:-1] + "B", "signature_upper_case"),
        ("Bearer " + SIGNATURE, "signature_scheme"),
        ("Basic dXNlcjpwYXNz", "signature_scheme"),
        ("sha256=" + SIGNATURE, "signature_scheme"),
        (" " + SIGNATURE, "signature_white_space"),
        (SIGNATURE + "\t", "signature_white_space"),
        (SIGNATURE + "\n", "signature_white_space"),
        (SIGNATURE + ", " + SIGNATURE, "signature_repeated"),
        (SIGNATURE[:-1], "signature_length"),
        (SIGNATURE[:32], "signature_length"),
        (SIGNATURE + "0", "signature_length"),
        (SIGNATURE * 2, "signature_length"),
        ("0x" + SIGNATURE[2:], "signature_not_hex"),
        ("g" * 64, "signature_not_hex"),
        ("eUF/Ln9kMg4VQBKwgBjVO3K9Le8F+SvuNVjDmp0as3s=", "signature_not_hex"),
        ("\xff" * 64, "signature_not_ascii"),
        ("é" + SIGNATURE[1:], "signature_not_ascii"),
        ("٣" * 64, "signature_not_ascii"),
        ("0" * 64, "signature_wrong"),
        (hashlib.sha256(BODY).hexdigest(), "signature_wrong"),
    ],
)
def test_every_other_spelling_is_refused_under_its_own_name(header, code):
    verdict = source().verify({} if header is None else {"authorization": header}, BODY)
    assert isinstance(verdict, Refused)
    assert verdict.code == code
    assert SIGNATURE not in verdict.detail
    assert KEY not in verdict.detail


def test_the_right_signature_over_the_same_json_written_anew_is_refused():
    rewritten = json.dumps(json.loads(BODY)).encode()
    assert json.loads(rewritten) == json.loads(BODY)
    verdict = source().verify({"authorization": SIGNATURE}, rewritten)
    assert isinstance(verdict, Refused)
    assert verdict.code == "signature_wrong"
    assert "changed the body" in verdict.detail


@given(at=st.integers(0, len(BODY) - 1), to=st.integers(0, 255))
def test_any_changed_byte_of_the_body_is_refused(at, to):
    body = BODY[:at] + bytes([to]) + BODY[at + 1 :]
    verdict = source().verify({"authorization": SIGNATURE}, body)
    assert isinstance(verdict, Verified if body == BODY else Refused)


@given(at=st.integers(0, 63), to=st.characters(max_codepoint=255))
def test_any_changed_character_of_the_signature_is_refused(at, to):
    signature = SIGNATURE[:at] + to + SIGNATURE[at + 1 :]
    verdict = source().verify({"authorization": signature}, BODY)
    assert isinstance(verdict, Verified if signature == SIGNATURE else Refused)


@given(st.text(max_size=200))
def test_no_header_makes_it_raise(header):
    assert isinstance(source().verify({"authorization": header}, BODY), Refused)


@given(st.binary(max_size=2000), st.text(min_size=1, max_size=100))
def test_sign_is_plain_hmac_sha256_and_verifies(body, key):
    signature = sign(SecretStr(key), body)
    assert signature == hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    assert isinstance(source("x", key).verify({"authorization": signature}, body), Verified)


@pytest.mark.parametrize("keys", [[], [""], ["good", ""]])
def test_a_source_without_a_real_key_cannot_be_made(keys):
    with pytest.raises(ConfigError, match="anybody could send"):
        DbtPlatform("analytics", [SecretStr(key) for key in keys])


# -- config ---------------------------------------------------------------------------------------


def test_config_takes_a_string_or_a_list():
    one = DbtPlatformConfig.model_validate({"webhook_secret": KEY})
    two = DbtPlatformConfig.model_validate({"webhook_secret": ["new", KEY]})
    assert [secret.get_secret_value() for secret in one.secrets] == [KEY]
    assert [secret.get_secret_value() for secret in two.secrets] == ["new", KEY]
    built = SPEC.build("analytics", two)
    assert built.name == "analytics"
    assert built.verify({"authorization": SIGNATURE}, BODY) == Verified("key 2 of 2")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"webhook_secret": []}, "list is empty"),
        ({"webhook_secret": ""}, "is empty"),
        ({"webhook_secret": ["ok", ""]}, "is empty"),
        ({"webhook_secret": "planted-secret\n"}, "white space"),
        ({"webhook_secret": "x", "webhook_secrets": "planted-secret"}, "webhook_secrets"),
        ({}, "webhook_secret"),
        ({"webhook_secret": {"planted-secret": 1}}, "webhook_secret"),
    ],
)
def test_config_mistakes_are_named_without_their_values(value, says):
    with pytest.raises(ValidationError) as caught:
        DbtPlatformConfig.model_validate(value)
    assert says in str(caught.value)
    assert "planted-secret" not in str(caught.value)


def test_registry_knows_it_and_suggests_it():
    assert source_spec("dbt_platform") is SPEC
    assert SOURCES["dbt_platform"].config is DbtPlatformConfig
    with pytest.raises(ConfigError, match=r"no source of type `dbt_platfrom`.*Did you mean `dbt_platform`\?"):
        source_spec("dbt_platfrom")
    with pytest.raises(ConfigError, match=r"The types are: .*dbt_platform"):
        source_spec("zapier")


# -- meaning --------------------------------------------------------------------------------------


def test_the_capture_is_read_whole():
    event = parse(BODY)
    assert (event.source, event.event_id, event.kind, event.type) == (
        "analytics", "wev_2QSUzWMSv40ow7s8n8TfVPVnYua", EventKind.RUN_FINISHED, "job.run.completed",
    )  # fmt: skip
    assert event.received_at == AT
    assert event.occurred_at == datetime(2023, 5, 29, 7, 52, 18, 66606, tzinfo=UTC)
    run = event.run
    assert (run.source, run.run_id, run.status, run.status_word) == (
        "analytics", "155144666", RunStatus.SUCCESS, "Success",
    )  # fmt: skip
    assert (run.job_id, run.job_name) == ("278164", "Snowflake Project Job")
    assert (run.environment_id, run.environment_name) == ("187998", "Deployment 1.4")
    assert (run.project_id, run.project_name, run.account_id) == ("241251", "Snowflake 2", "66847")
    assert run.started_at == datetime(2023, 5, 29, 7, 51, 56, tzinfo=UTC)
    assert run.finished_at == datetime(2023, 5, 29, 7, 52, 15, tzinfo=UTC)
    assert run.nodes is None


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("job.run.started", EventKind.RUN_STARTED),
        ("job.run.completed", EventKind.RUN_FINISHED),
        ("job.run.errored", EventKind.RUN_ERRORED),
        ("job.run.cancelled", EventKind.OTHER),
        ("JOB.RUN.COMPLETED", EventKind.OTHER),
        ("", EventKind.OTHER),
        (None, EventKind.OTHER),
        (["job.run.completed"], EventKind.OTHER),
    ],
)
def test_event_types(word, kind):
    event = parse(changed(eventType=word))
    assert event.kind is kind
    assert event.type == (word if isinstance(word, str) else "")
    assert event.run.run_id == "155144666"


@pytest.mark.parametrize(
    ("data", "status", "word"),
    [
        ({}, RunStatus.SUCCESS, "Success"),
        ({"runStatusCode": None}, RunStatus.SUCCESS, "Success"),
        ({"runStatusCode": "10"}, RunStatus.SUCCESS, "Success"),
        ({"runStatusCode": 10.0}, RunStatus.SUCCESS, "Success"),
        ({"runStatusCode": 20}, RunStatus.OTHER, "Success, but runStatusCode 20"),
        ({"runStatusCode": "0"}, RunStatus.OTHER, "Success, but runStatusCode 0"),
        ({"runStatusCode": True}, RunStatus.OTHER, "Success, but runStatusCode unreadable"),
        ({"runStatusCode": [10]}, RunStatus.OTHER, "Success, but runStatusCode unreadable"),
        ({"runStatus": "Errored"}, RunStatus.OTHER, "Errored, but runStatusCode 10"),
        ({"runStatus": "Errored", "runStatusCode": 20}, RunStatus.ERROR, "Errored"),
        ({"runStatus": "Error", "runStatusCode": 20}, RunStatus.ERROR, "Error"),
        ({"runStatus": "Cancelled", "runStatusCode": 30}, RunStatus.CANCELLED, "Cancelled"),
        ({"runStatus": "Running", "runStatusCode": 3}, RunStatus.RUNNING, "Running"),
        ({"runStatus": "success"}, RunStatus.OTHER, "success"),
        ({"runStatus": "Success "}, RunStatus.OTHER, "Success "),
        ({"runStatus": "Reused"}, RunStatus.OTHER, "Reused"),
        ({"runStatus": 10}, RunStatus.OTHER, "10"),
        ({"runStatus": True}, RunStatus.OTHER, "no runStatus, runStatusCode 10"),
        ({"runStatus": None}, RunStatus.OTHER, "no runStatus, runStatusCode 10"),
        ({"runStatus": None, "runStatusCode": None}, RunStatus.OTHER, ""),
    ],
)
def test_only_the_word_success_that_nothing_contradicts_is_success(data, status, word):
    run = parse(changed(data)).run
    assert (run.status, run.status_word) == (status, word)


@pytest.mark.parametrize("word", ["job.run.started", "job.run.errored"])
def test_success_in_an_event_that_cannot_mean_it_is_not_success(word):
    run = parse(changed(eventType=word)).run
    assert run.status is RunStatus.OTHER
    assert run.status_word == f"Success in {word}"


def test_a_failed_run_by_its_two_events():
    for word, ended in (("job.run.errored", "runErroredAt"), ("job.run.completed", "runFinishedAt")):
        body = changed({"runStatus": "Errored", "runStatusCode": 20}, drop=["runFinishedAt"], eventType=word)
        body["data"][ended] = "2023-01-31T21:15:20Z"
        event = parse(body)
        assert event.run.status is RunStatus.ERROR
        assert event.run.finished_at == datetime(2023, 1, 31, 21, 15, 20, tzinfo=UTC)


SAMPLE = {"jobId": "123", "runId": "12345", "projectId": "167194"}


@pytest.mark.parametrize("word", ["job.run.started", "job.run.completed", "job.run.errored", "job.run.new"])
def test_the_documented_sample_is_a_test(word):
    assert parse(changed(SAMPLE, accountId=1, eventType=word)).kind is EventKind.TEST
    assert parse(changed({k: int(v) for k, v in SAMPLE.items()}, accountId="1")).kind is EventKind.TEST


@pytest.mark.parametrize("field", [*SAMPLE, "accountId"])
def test_a_run_that_shares_only_some_of_the_samples_ids_is_real(field):
    body = changed(SAMPLE, accountId=1)
    (body if field == "accountId" else body["data"])[field] = "99"
    assert parse(body).kind is EventKind.RUN_FINISHED


def test_numbers_as_strings_and_strings_as_numbers():
    event = parse(changed({"runId": 70437497968840, "jobId": 278164.0, "jobName": 7}, accountId="66847"))
    assert (event.run.run_id, event.run.job_id, event.run.job_name) == ("70437497968840", "278164", "7")
    assert event.run.account_id == "66847"
    assert parse(changed(eventId=12345678901234567890123)).event_id == "12345678901234567890123"


@pytest.mark.parametrize("value", [None, "", True, 1.5, 1e300, [], {}, "\x00", "a\nb", "x" * 201])
def test_an_id_that_is_none_is_left_out(value):
    run = parse(changed({"jobId": value}, accountId=value)).run
    assert (run.job_id, run.account_id) == (None, None)
    without = parse(changed({"runId": value}))
    assert without.run is None
    assert without.kind is EventKind.OTHER


@pytest.mark.parametrize("data", [None, [], "x", 5, {}, {"run": {"id": 1}}])
def test_a_well_formed_body_of_another_shape_is_kept(data):
    event = parse({"eventId": "wev_1", "eventType": "job.run.completed", "data": data})
    assert (event.event_id, event.kind, event.run) == ("wev_1", EventKind.OTHER, None)


@pytest.mark.parametrize("spelling", ["webhookId", "webhooksID", None])
def test_the_webhook_id_may_be_spelled_either_way_or_be_missing(spelling):
    body = changed(drop=["webhookId"])
    if spelling:
        body[spelling] = "wsu_1"
    assert parse(body) == parse(BODY)


def test_missing_optional_fields():
    event = parse({"eventId": "e", "eventType": "job.run.completed", "data": {"runId": "1", "runStatus": "Success"}})
    assert event.kind is EventKind.RUN_FINISHED
    assert event.run.status is RunStatus.SUCCESS
    assert event.occurred_at is None
    assert (event.run.job_id, event.run.started_at, event.run.reason, event.run.account_id) == (None,) * 4


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2023-01-31T19:28:15.742843678Z", datetime(2023, 1, 31, 19, 28, 15, 742843, tzinfo=UTC)),
        ("2023-01-31T19:28:15.06660617Z", datetime(2023, 1, 31, 19, 28, 15, 66606, tzinfo=UTC)),
        ("2023-01-31T19:28:15.1Z", datetime(2023, 1, 31, 19, 28, 15, 100000, tzinfo=UTC)),
        ("2023-01-31T19:28:15Z", datetime(2023, 1, 31, 19, 28, 15, tzinfo=UTC)),
        ("2023-01-31T21:28:15+02:00", datetime(2023, 1, 31, 19, 28, 15, tzinfo=UTC)),
        ("2023-01-31 19:28:15.996618+00:00", datetime(2023, 1, 31, 19, 28, 15, 996618, tzinfo=UTC)),
        ("2023-01-31T19:28:15", datetime(2023, 1, 31, 19, 28, 15, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:00", None),
        ("yesterday", None),
        ("", None),
        (1685346738, None),
        (None, None),
        ({}, None),
    ],
)
def test_times(text, moment):
    event = parse(changed({"runStartedAt": text, "runFinishedAt": text}, timestamp=text))
    assert (event.occurred_at, event.run.started_at, event.run.finished_at) == (moment,) * 3
    assert moment is None or event.occurred_at.tzinfo is UTC


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(days=1), timedelta(days=-400)])
def test_a_clock_that_is_off_changes_nothing(off):
    event = parse(changed(timestamp=(AT + off).isoformat()))
    assert event.kind is EventKind.RUN_FINISHED
    assert event.occurred_at == AT + off


@pytest.mark.parametrize(
    ("reason", "message", "shown"),
    [
        ("Kicked off from UI by analyst@example.com", "None", "Kicked off from UI by …@example.com"),
        ("by <a.b+c@x.org>, for d@y", "None", "by …@x.org>, for …@y"),
        ("scheduled", "None", "scheduled"),
        ("scheduled", "Database Error", "scheduled; Database Error"),
        ("", "None", None),
        ("None", None, None),
        (None, "Cancelled by z@x.org", "Cancelled by …@x.org"),
        ([1], {}, None),
    ],
)
def test_the_reason_is_shown_without_the_persons_address(reason, message, shown):
    assert parse(changed({"runReason": reason, "runStatusMessage": message})).run.reason == shown


def test_a_hostile_reason_is_cut_and_costs_nothing():
    for reason in ("a" * 1_000_000, "@" * 1_000_000, "a@" * 500_000):
        assert len(parse(changed({"runReason": reason})).run.reason) <= 501


def test_a_key_given_twice_counts_as_last_given():
    body = BODY.replace(b'"runStatus":"Success"', b'"runStatus":"Success","runStatus":"Errored","runStatusCode":20')
    body = body.replace(b'"runStatusCode":10,', b"")
    assert parse(body).run.status is RunStatus.ERROR
    assert parse(b'{"eventId":"a","eventId":"b"}').event_id == "b"


def test_nul_in_a_name_is_made_storable():
    assert parse(changed({"jobName": "a\0b"})).run.job_name == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"not json", "not_json"),
        (BODY[:-1], "not_json"),
        (BODY + b"x", "not_json"),
        (b'{"eventId":"a","accountId":' + b"9" * 5000 + b"}", "not_json"),
        (b'{"eventId":"a","accountId":1e999}', "not_json"),
        (b'{"eventId":"a","x":NaN}', "not_json"),
        (b'{"eventId":"\\ud800"}', "not_json"),
        (b"\xef\xbb\xbf" + BODY, "not_json"),
        (BODY.decode().encode("utf-16"), "not_utf8"),
        (BODY.replace(b"Flask", b"Fl\xe4sk"), "not_utf8"),
        (BODY.replace(b"Snowflake 2", b"\xed\xa0\x80"), "not_utf8"),
        (b"[" + BODY + b"]", "not_an_object"),
        (b'"wev_1"', "not_an_object"),
        (b"{}", "event_id_missing"),
        (json.dumps(changed(drop=["eventId"])).encode(), "event_id_missing"),
        (b'{"eventId":null}', "event_id_missing"),
        (b'{"eventId":""}', "event_id_missing"),
        (b'{"eventId":["a"]}', "event_id_unusable"),
        (b'{"eventId":true}', "event_id_unusable"),
        (b'{"eventId":1.5}', "event_id_unusable"),
        (b'{"eventId":"a\\u0000"}', "event_id_unusable"),
        (b'{"eventId":"' + b"a" * 201 + b'"}', "event_id_unusable"),
        (b'{"eventId":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b'{"eventId":"a","data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "too_deep"),
        (b'{"eventId":"a","data":{"jobName":' + b"[" * 100_000, "too_deep"),
    ],
)
def test_unusable_bodies_have_their_own_names(body, code):
    with pytest.raises(BadInput) as caught:
        parse(body)
    assert caught.value.code == code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = list(json.loads(BODY)["data"])


@given(
    st.dictionaries(st.sampled_from(["eventId", "accountId", "timestamp", "eventType"]), json_values),
    st.dictionaries(st.sampled_from(NAMES), json_values),
)
def test_whatever_stands_in_the_fields_it_is_an_event_or_bad_input(top, data):
    body = json.dumps(changed(data, **top)).encode("utf-8", "replace")
    try:
        event = parse(body)
    except BadInput:
        return
    assert event.event_id
    if event.run is not None and event.run.status is RunStatus.SUCCESS:
        assert json.loads(body)["data"]["runStatus"] == "Success"
    for text in (event.event_id, event.type, *(event.run.__getstate__() if event.run else ())):
        if isinstance(text, str):
            text.encode()  # storable


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_bad_input(body):
    with suppress(BadInput):
        assert parse(body).event_id


# -- the test delivery ----------------------------------------------------------------------------


def test_the_test_delivery_is_genuine_and_a_test():
    config = DbtPlatformConfig.model_validate({"webhook_secret": ["first", "second"]})
    made = SPEC.test_delivery(config, "wev_test_1", AT)
    built = SPEC.build("analytics", config)
    assert built.verify(made.headers, made.body) == Verified("key 1 of 2")
    event = built.parse(made.body, AT)
    assert (event.kind, event.event_id, event.occurred_at) == (EventKind.TEST, "wev_test_1", AT)
