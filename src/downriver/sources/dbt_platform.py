"""The dbt platform's webhooks ("dbt Cloud"): is a delivery genuine, and what does it say?

Facts: https://docs.getdbt.com/docs/deploy/webhooks and a real capture, read September 2026.

How doubtful deliveries are read, on purpose:

- The signature must be spelled as dbt spells it: 64 lower-case hex digits and nothing else. Any other
  spelling means that something between dbt and us rewrote the header; accepting it would hide that.
- An event needs an `eventId`. Everything else may be missing: such an event is kept and shown.
- Ids may be strings or whole numbers and are handed on as strings. A key given twice: the last counts.
- A run succeeded when dbt says the *word* `Success`, and `runStatusCode`, if there, does not contradict
  it. A contradiction is `RunStatus.OTHER`, which refreshes nothing; the status word tells both.
- The reason of a run names the person who started it. The raw body keeps the address; what we hand on
  for listings, logs and pages has the part before the `@` removed.
- Neither the age of `timestamp` nor its being in the future is held against a delivery: it is signed by
  no clock we know, retries come late, and a replayed body is recognised by its `eventId`.
"""

from __future__ import annotations

import hmac
import re
from datetime import UTC, datetime
from string import hexdigits
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from downriver.core.errors import BadInput, ConfigError
from downriver.core.model import Event, EventKind, Run, RunStatus
from downriver.sources.base import Delivery, Refused, SourceSpec, Verified

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DIGITS: Final = 64
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*[ \t=:]")
_MAX_ID: Final = 200
_MAX_REASON: Final = 500
_LARGEST_EXACT_FLOAT: Final = 2**53

_KINDS: Final = {
    "job.run.started": EventKind.RUN_STARTED,
    "job.run.completed": EventKind.RUN_FINISHED,
    "job.run.errored": EventKind.RUN_ERRORED,
}
# The webhook's words and the codes that belong to them; the Admin API says Error for Errored.
_STATUSES: Final = {
    "Queued": (RunStatus.RUNNING, "1"),
    "Starting": (RunStatus.RUNNING, "2"),
    "Running": (RunStatus.RUNNING, "3"),
    "Success": (RunStatus.SUCCESS, "10"),
    "Errored": (RunStatus.ERROR, "20"),
    "Error": (RunStatus.ERROR, "20"),
    "Cancelled": (RunStatus.CANCELLED, "30"),
}
# The platform's "Test endpoint" sends hard-coded values: (accountId, jobId, runId, projectId).
_TEST: Final = ("1", "123", "12345", "167194")


class DbtPlatformConfig(BaseModel):
    """The keys of a `dbt_platform` source in downriver.yml."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    webhook_secret: SecretStr | list[SecretStr] = Field(
        description="The secret dbt shows once, when the webhook is created. "
        "A list while it is being replaced: a delivery signed with any of them is genuine.",
    )

    @field_validator("webhook_secret", mode="after")
    @classmethod
    def _usable(cls, value: SecretStr | list[SecretStr]) -> SecretStr | list[SecretStr]:
        secrets = value if isinstance(value, list) else [value]
        if not secrets:
            raise ValueError("the list is empty: give at least one webhook secret")
        for secret in secrets:
            text = secret.get_secret_value()
            if not text:
                raise ValueError("a webhook secret is empty: with an empty one anybody could sign")
            if text != text.strip():
                raise ValueError(
                    "a webhook secret begins or ends with white space: a line end was pasted along; set it again"
                )
        return value

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """The secrets, in the order given."""
        return tuple(self.webhook_secret) if isinstance(self.webhook_secret, list) else (self.webhook_secret,)


class _Data(msgspec.Struct, rename="camel", frozen=True):
    """The `data` of a body. Anything may stand anywhere: each field is judged where it is used."""

    job_id: Any = None
    job_name: Any = None
    run_id: Any = None
    environment_id: Any = None
    environment_name: Any = None
    project_id: Any = None
    project_name: Any = None
    run_status: Any = None
    run_status_code: Any = None
    run_status_message: Any = None
    run_reason: Any = None
    run_started_at: Any = None
    run_finished_at: Any = None
    run_errored_at: Any = None


class _Body(msgspec.Struct, rename="camel", frozen=True):
    """A body. `webhookId` (once `webhooksID`) and `webhookName` are not read: the address names the source."""

    event_id: Any = None
    event_type: Any = None
    account_id: Any = None
    timestamp: Any = None
    data: msgspec.Raw = msgspec.Raw(b"null")


_BODY: Final = msgspec.json.Decoder(_Body)
_DATA: Final = msgspec.json.Decoder(_Data)
_NO_DATA: Final = _Data()


class DbtPlatform:
    """A dbt platform account's webhook, with the secrets that sign it."""

    __slots__ = ("_macs", "_verified", "name")

    def __init__(self, name: str, secrets: Sequence[SecretStr]) -> None:
        """Raise ConfigError when there is no secret, or an empty one."""
        self.name = name
        keys = [secret.get_secret_value().encode() for secret in secrets]
        if not keys or not all(keys):
            raise ConfigError(f"Source `{name}` has no webhook secret: anybody could send to it.")
        # A key is taken in once and its state copied for each delivery: half the cost of starting anew.
        self._macs = tuple(hmac.new(key, digestmod="sha256") for key in keys)
        self._verified = tuple(Verified(f"key {position} of {len(keys)}") for position, _ in enumerate(keys, 1))

    def verify(self, headers: Mapping[str, str], body: bytes) -> Verified | Refused:
        """Compare the signature with that of the body under every key, whichever fits."""
        given = headers.get("authorization")
        if given is None or _SIGNATURE.fullmatch(given) is None:
            return _misspelled(given)
        signature = bytes.fromhex(given)
        fitting = 0
        # No early exit: how long this takes says nothing about which key fits, or whether one does.
        for position, keyed in enumerate(self._macs, start=1):
            mac = keyed.copy()
            mac.update(body)
            if hmac.compare_digest(mac.digest(), signature):
                fitting = position
        if not fitting:
            return Refused(
                "signature_wrong",
                "The signature is not that of this body under any configured webhook secret. Either the secret "
                "is another webhook's (dbt shows a secret once; a new webhook has a new one), or something "
                "between dbt and here changed the body, if only its spaces.",
            )
        return self._verified[fitting - 1]

    def parse(self, body: bytes, received_at: datetime) -> Event:
        """Read the body as an event.

        Codes of the BadInput it raises: not_utf8, not_json, too_deep, not_an_object, event_id_missing,
        event_id_unusable.
        """
        outer, data = _decode(body)
        event_id = _event_id(outer.event_id)
        word = (_text(outer.event_type) or "")[:_MAX_ID]
        kind = _KINDS.get(word, EventKind.OTHER)
        run = self._run(outer, data, word, kind)
        if run is None:
            kind = EventKind.OTHER  # there is nothing that could be acted on
        elif (run.account_id, run.job_id, run.run_id, run.project_id) == _TEST:
            kind = EventKind.TEST
        return Event(
            source=self.name,
            event_id=event_id,
            kind=kind,
            type=word,
            received_at=received_at,
            occurred_at=_moment(outer.timestamp),
            run=run,
        )

    def _run(self, outer: _Body, data: _Data, word: str, kind: EventKind) -> Run | None:
        run_id = _identifier(data.run_id)
        if run_id is None:
            return None
        status, status_word = _status(data.run_status, data.run_status_code)
        if status is RunStatus.SUCCESS and kind in (EventKind.RUN_STARTED, EventKind.RUN_ERRORED):
            status, status_word = RunStatus.OTHER, f"{status_word} in {word}"
        finished_at = _moment(data.run_finished_at)
        return Run(
            source=self.name,
            run_id=run_id,
            status=status,
            status_word=status_word,
            job_id=_identifier(data.job_id),
            job_name=_text(data.job_name),
            environment_id=_identifier(data.environment_id),
            environment_name=_text(data.environment_name),
            project_id=_identifier(data.project_id),
            project_name=_text(data.project_name),
            account_id=_identifier(outer.account_id),
            reason=_reason(data),
            started_at=_moment(data.run_started_at),
            finished_at=finished_at if finished_at is not None else _moment(data.run_errored_at),
        )


# -- the signature --------------------------------------------------------------------------------


def sign(secret: SecretStr, body: bytes) -> str:
    """The signature of `body`, as dbt sends it in `Authorization`."""
    return hmac.digest(secret.get_secret_value().encode(), body, "sha256").hex()


def _misspelled(given: str | None) -> Refused:
    """Why `given` cannot be a signature of dbt's. Says nothing of what it holds."""
    if given is None:
        return Refused(
            "signature_missing",
            "There is no Authorization header, where dbt puts its signature. If this did come from dbt, "
            "something in between (a proxy with its own login, an API gateway) removes the header.",
        )
    if not given.strip():
        return Refused("signature_empty", "The Authorization header is empty; dbt puts its signature there.")
    if not given.isascii():
        return Refused(
            "signature_not_ascii",
            "The Authorization header holds bytes that are not ASCII; a signature is 64 lower-case hex digits.",
        )
    return _malformed(given)


def _malformed(given: str) -> Refused:
    if given != given.strip():
        return Refused(
            "signature_white_space",
            "There is white space around the signature; dbt sends the 64 hex digits alone.",
        )
    if "," in given:
        return Refused(
            "signature_repeated",
            "There is more than one Authorization value. Something in between adds its own: have it pass "
            "dbt's header on as it is.",
        )
    if _SCHEME.match(given):
        return Refused(
            "signature_scheme",
            "The Authorization header begins with a scheme word (like Bearer or Basic); dbt sends the bare "
            "signature. Leave the word out, or keep the proxy that adds it from touching this address.",
        )
    if any(character not in hexdigits for character in given):
        return Refused(
            "signature_not_hex",
            "The Authorization header is not a hex number; a signature is 64 lower-case hex digits.",
        )
    if len(given) != _DIGITS:
        return Refused(
            "signature_length",
            f"The signature has {len(given)} hex digits instead of {_DIGITS}: it was cut, or made with another "
            "algorithm (HMAC-SHA256 is asked for).",
        )
    return Refused(
        "signature_upper_case",
        "The signature has upper-case digits. dbt writes lower-case ones: send it exactly as it was made.",
    )


# -- the body -------------------------------------------------------------------------------------


def _decode(body: bytes) -> tuple[_Body, _Data]:
    try:
        body.decode()  # the decoder does not look inside strings that nobody asked for
        outer = _BODY.decode(body)
    except UnicodeDecodeError as error:
        raise BadInput(
            f"The body is not UTF-8 (byte {error.start}), which JSON has to be.", code="not_utf8"
        ) from None
    except RecursionError:
        raise BadInput("The body nests deeper than any event does.", code="too_deep") from None
    except msgspec.ValidationError:
        if body.lstrip().startswith(b"{"):
            raise BadInput("The body holds a number that is out of range.", code="not_json") from None
        raise BadInput("The body is JSON, but not an object; an event is an object.", code="not_an_object") from None
    except msgspec.DecodeError as error:
        raise BadInput(f"The body is not JSON: {error}.", code="not_json") from None
    try:
        return outer, _DATA.decode(outer.data)
    except (msgspec.DecodeError, RecursionError):
        return outer, _NO_DATA  # well-formed, but not what dbt sends: kept, and nothing read out of it


def _event_id(value: object) -> str:
    if value is None or value == "":
        raise BadInput("The body has no eventId, by which deliveries are told apart.", code="event_id_missing")
    text = _identifier(value)
    if text is None:
        raise BadInput(
            f"The eventId is not a text of at most {_MAX_ID} printable characters.", code="event_id_unusable"
        )
    return text


def _identifier(value: object) -> str | None:
    """An id as text: a string, or a whole number. None for anything else, and for what is no sane id."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_EXACT_FLOAT:
        value = int(value)  # 12345.0: JSON does not tell it from 12345
    text = value if isinstance(value, str) else _digits(value)
    return text if text and len(text) <= _MAX_ID and text.isprintable() else None


def _text(value: object) -> str | None:
    """A name for people; None when it is empty or not a text."""
    text = value if isinstance(value, str) else _digits(value)
    # Postgres stores no NUL in a text.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if text else None


def _digits(value: object) -> str | None:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _moment(value: object) -> datetime | None:
    """An RFC 3339 time in UTC. dbt gives up to nine fraction digits; beyond microseconds they are cut."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is UTC:  # the usual case, a Z at the end
            return at
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _status(word: object, code: object) -> tuple[RunStatus, str]:
    """Our status, and what dbt said: its word, with the code when the two do not belong together."""
    said = _text(word)
    if said is None:
        return RunStatus.OTHER, "" if code is None else f"no runStatus, runStatusCode {_shown(code)}"
    status, expected = _STATUSES.get(said, (RunStatus.OTHER, None))
    if expected is not None and code is not None and _identifier(code) != expected:
        return RunStatus.OTHER, f"{said}, but runStatusCode {_shown(code)}"
    return status, said


def _shown(code: object) -> str:
    return _identifier(code) or "unreadable"


def _reason(data: _Data) -> str | None:
    """Why the run began and dbt's own remark on how it ended, without the mailbox part of e-mail addresses."""
    parts = [_text(data.run_reason), _text(data.run_status_message)]
    said = "; ".join(part[:_MAX_REASON] for part in parts if part is not None and part != "None")
    if "@" in said:
        words = said.split(" ")
        said = " ".join("…@" + word.rpartition("@")[2] if "@" in word else word for word in words)
    return said or None


# -- the documented sample ------------------------------------------------------------------------


def _test_delivery(config: BaseModel, event_id: str, at: datetime) -> Delivery:
    """What the platform's "Test endpoint" sends, signed with the first secret."""
    moment = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
    body = msgspec.json.encode(
        {
            "accountId": 1,
            "webhookId": "wsu_12345abcde",
            "eventId": event_id,
            "timestamp": moment,
            "eventType": "job.run.completed",
            "webhookName": "test",
            "data": {
                "jobId": "123",
                "jobName": "Daily Job (dbt build)",
                "runId": "12345",
                "environmentId": "1234",
                "environmentName": "Production",
                "dbtVersion": "1.0.0",
                "projectName": "Snowflake Github Demo",
                "projectId": "167194",
                "runStatus": "Success",
                "runStatusCode": 10,
                "runStatusMessage": "None",
                "runReason": "Kicked off from the UI by test@test.com",
                "runStartedAt": moment,
                "runFinishedAt": moment,
            },
        }
    )
    secret = cast("DbtPlatformConfig", config).secrets[0]
    return Delivery({"authorization": sign(secret, body), "content-type": "application/json"}, body)


def _build(name: str, config: BaseModel) -> DbtPlatform:
    return DbtPlatform(name, cast("DbtPlatformConfig", config).secrets)


SPEC: Final = SourceSpec(
    kind="dbt_platform",
    title="dbt platform (dbt Cloud) webhook",
    config=DbtPlatformConfig,
    build=_build,
    test_delivery=_test_delivery,
)
