"""The contract every connector keeps, as a test class to inherit.

A subclass says what its vendor's API looks like when all is well; the contract then breaks it in every way
that the vendors' APIs were seen to break (facts/bi-core.md §6, §8), and checks what the connector says::

    class TestLighthouse(ConnectorContract):
        spec = SPEC
        config = {"site": "acme", "key": "k-4d1f8a02"}
        asset = {"board": "17"}
        running = ("waiting", "working")
        ended = {"done": RefreshState.SUCCEEDED, "broken": RefreshState.FAILED}
        run_id = "9001"

        def check_script(self): return [Exchange("GET", "/v2/me", body={"name": "robot"})]
        ...

The tests run their own event loops: no asyncio plugin is needed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar, TypeVar

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from downriver.connectors.base import Connector, ConnectorSpec, Shape, connect
from downriver.connectors.http import REFUSED_UNWORKED, Request
from downriver.connectors.redaction import secrets_in
from downriver.core.errors import CallError, InDoubt, Permanent, Transient, Unsupported
from downriver.core.model import Asset, Json, Outcome, StillRunning, Ticket
from downriver.core.states import OUTCOMES, RefreshState
from downriver.testing.scripted import Exchange, ScriptedTransport

T = TypeVar("T")

PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
HTML = {"content-type": "text/html; charset=utf-8"}
FOR_GOOD = (400, 401, 403, 404, 410, 422)
PASSING = (408, 500, 502, 503, 504)
WRONG_FORMS = (b"[]", b'"text"', b"null", b"17", b'{"a":', b"", b"\xff\xfe", b"[" * 20_000 + b"]" * 20_000)
READS = ("check", "look", "find_recent")


@dataclass(frozen=True, slots=True)
class RecentRun:
    """A run that the vendor's list shall show. `ours` is False for one made with other parameters."""

    id: str
    created_at: datetime
    ours: bool = True


class ConnectorContract:
    """Inherit, fill in the class attributes and the `…_script` methods, and add the connector's own tests."""

    spec: ClassVar[ConnectorSpec]
    config: ClassVar[Mapping[str, Json]]
    """The connection's keys as in downriver.yml; secrets of eight characters or more."""
    asset: ClassVar[Mapping[str, Json]]
    """The dashboard's keys as in downriver.yml, with parameters if the tool has any."""
    running: ClassVar[Sequence[str]] = ()
    """Every documented state of a run that goes on."""
    ended: ClassVar[Mapping[str, RefreshState]] = {}
    """Every documented state of a run that has ended, and what it means."""
    run_id: ClassVar[str]

    def check_script(self) -> list[Exchange]:
        """A check that finds good credentials."""
        raise NotImplementedError

    def inspect_script(self) -> list[Exchange]:
        """An asset that may be refreshed."""
        raise NotImplementedError

    def trigger_script(self) -> list[Exchange]:
        """A refresh that is accepted and gives run `run_id`. The first write in it is the trigger."""
        raise NotImplementedError

    def look_script(self, word: str) -> list[Exchange]:
        """A look at run `run_id` in the vendor's state `word`."""
        raise NotImplementedError

    def recent_script(self, runs: Sequence[RecentRun]) -> list[Exchange]:
        """The vendor's list of recent runs of the asset, in the vendor's order."""
        raise NotImplementedError

    def check_request(self, request: Request) -> None:
        """Called with every request; override to hold it against the vendor's published description."""

    # ------------------------------------------------------------------ what the tests are made of

    def _config(self) -> BaseModel:
        return self.spec.config.model_validate(dict(self.config))

    def _asset(self) -> Asset:
        assets = self.spec.assets("here", self._config(), self.spec.asset.model_validate(dict(self.asset)))
        return assets[0]

    def _ticket(self) -> Ticket:
        """The ticket that a real trigger gives."""
        ticket = asyncio.run(self._connected(ScriptedTransport(*self.trigger_script())).trigger(self._asset()))
        assert isinstance(ticket, Ticket)
        return ticket

    def _secrets(self) -> set[str]:
        """Everything nobody may see, in every form it travels in."""
        config = self._config()
        fields = (getattr(config, name) for name in type(config).model_fields)
        secrets = {value.get_secret_value() for value in fields if isinstance(value, SecretStr)}
        return secrets | set(secrets_in(self.spec.auth(config))) - {""}

    def _connected(self, transport: ScriptedTransport, spent: list[int] | None = None) -> Connector:
        async def spend() -> None:
            if spent is not None:
                spent.append(len(transport.requests))

        return connect(self.spec, self._config(), transport, spend=spend)

    def _script(self, verb: str) -> list[Exchange]:
        match verb:
            case "check":
                return self.check_script()
            case "inspect":
                return self.inspect_script()
            case "trigger":
                return self.trigger_script()
            case "look":
                return self.look_script(next(iter(self.running)))
            case _:
                return self.recent_script([])

    def _verb(self, verb: str) -> Callable[[Connector], Coroutine[Any, Any, object]]:
        asset = self._asset()
        ticket = self._ticket() if verb == "look" else None

        async def call(connector: Connector) -> object:
            match verb:
                case "check":
                    return await connector.check()
                case "inspect":
                    return await connector.inspect(asset)
                case "trigger":
                    return await connector.trigger(asset)
                case "look":
                    assert ticket is not None
                    return await connector.look(asset, ticket)
                case _:
                    return await connector.find_recent(asset, datetime(2026, 3, 1, tzinfo=UTC))

        return call

    def _skip_unless_job(self, verb: str) -> None:
        if verb == "look" and self.spec.shape is not Shape.JOB:
            pytest.skip(f"a connector of shape {self.spec.shape} has no run to look at")
        if verb == "find_recent" and not self.spec.can_find_recent:
            pytest.skip("this connector cannot list runs")

    def _with_fault(self, verb: str, **fault: Any) -> ScriptedTransport:
        """The verb's script, whose main exchange gets `fault` in place of its answer."""
        script = self._script(verb)
        write = verb == "trigger"
        place = next(
            at for at, one in enumerate(script) if not one.aside and (not write or one.method not in ("GET", "HEAD"))
        )
        script[place] = replace(script[place], **{"headers": {}, "body": {}, **fault})
        # A connector may ask the asset why it was refused.
        extra = self.inspect_script() if write else []
        return ScriptedTransport(*script, *extra, on_request=self.check_request)

    def _fails(self, verb: str, kind: type[CallError], **fault: Any) -> CallError:
        """Run the verb into a fault: the error it must end in, which shows no secret."""
        self._skip_unless_job(verb)
        transport = self._with_fault(verb, **fault)
        call, connector = self._verb(verb), self._connected(transport)
        with pytest.raises(CallError) as caught:
            asyncio.run(call(connector))
        error = caught.value
        assert type(error) is kind, f"{verb}: {kind.__name__} was due, not {type(error).__name__}: {error}"
        self._assert_secret_free(error, transport)
        if verb == "trigger":
            assert len(transport.writes) == 1, "a trigger is sent once, whatever happens"
        return error

    def _assert_secret_free(self, error: BaseException, transport: ScriptedTransport) -> None:
        shown = "".join(traceback.format_exception(error))
        link: BaseException | None = error
        while link is not None:
            shown += f"{link!s}\n{link!r}\n{getattr(link, '__dict__', '')}\n"
            link = link.__cause__ or link.__context__
        shown += "".join(repr(request) + request.url for request in transport.requests)
        for secret in self._secrets():
            assert secret not in shown, "a secret shows in an error, a representation or an address"

    # ------------------------------------------------------------------ the set-up

    def test_spec_is_whole(self) -> None:
        assert self.spec.kind.isidentifier()
        assert self.spec.kind == self.spec.kind.lower()
        assert self.spec.title
        assert self.spec.limits.concurrency >= 1
        assert self.spec.base_url(self._config()).startswith(("https://", "http://"))
        if self.spec.shape is Shape.JOB:
            assert self.running, "name the documented states in `running` and `ended`"
            assert self.ended

    def test_config_keeps_its_secrets(self) -> None:
        secrets = self._secrets()
        assert secrets, "which of the keys is secret? Use SecretStr."
        config = self._config()
        shown = f"{config!r} {config} {config.model_dump_json()}"
        with pytest.raises(ValidationError) as caught:
            self.spec.config.model_validate({**self.config, "no_such_key": 1})
        shown += f"{caught.value} {caught.value!r}"
        for secret in secrets:
            assert secret not in shown

    def test_assets_are_stable_and_of_this_connection(self) -> None:
        first, second = self._asset(), self._asset()
        assert first.key == second.key
        assert first.connection == "here"
        json.dumps(dict(first.parameters))

    # ------------------------------------------------------------------ all is well

    @pytest.mark.parametrize("verb", ["check", "inspect", "trigger", "look", "find_recent"])
    def test_good_day(self, verb: str, caplog: pytest.LogCaptureFixture) -> None:
        """Every verb works, asks for its budget before each request, and keeps credentials out of sight."""
        self._skip_unless_job(verb)
        caplog.set_level(logging.DEBUG)
        transport = ScriptedTransport(*self._script(verb), on_request=self.check_request)
        spent: list[int] = []
        call, connector = self._verb(verb), self._connected(transport, spent)
        answer = asyncio.run(call(connector))
        assert spent == list(range(len(transport.requests))), "every request is counted before it is made"
        assert not transport.unused, "the script holds requests that the connector does not make"
        shown = f"{answer!r} {connector!r} {caplog.text}"
        shown += "".join(f"{request!r} {request.url} {request.body!r}" for request in transport.requests)
        for secret in self._secrets():
            assert secret not in shown
        if verb != "trigger":
            assert not transport.writes, f"{verb} must change nothing"

    def test_check_says_who_and_where(self) -> None:
        identity = asyncio.run(self._connected(ScriptedTransport(*self.check_script())).check())
        assert identity.who
        assert identity.scope

    def test_good_asset_has_no_problem(self) -> None:
        status = asyncio.run(self._connected(ScriptedTransport(*self.inspect_script())).inspect(self._asset()))
        assert status.problem is None
        assert status.title

    def test_trigger_gives_a_ticket(self) -> None:
        transport = ScriptedTransport(*self.trigger_script(), on_request=self.check_request)
        answer = asyncio.run(self._connected(transport).trigger(self._asset()))
        assert len(transport.writes) == 1
        if self.spec.shape is not Shape.JOB:
            assert isinstance(answer, Outcome)
            return
        assert isinstance(answer, Ticket)
        assert answer.id == self.run_id
        assert json.loads(json.dumps(dict(answer.data))) == dict(answer.data), "a ticket is stored as JSON"
        assert answer.created_at is None or answer.created_at.utcoffset() == timedelta(0)

    # ------------------------------------------------------------------ refusals and faults

    @pytest.mark.parametrize("status", FOR_GOOD)
    @pytest.mark.parametrize("verb", [*READS, "trigger"])
    def test_refused_for_good(self, verb: str, status: int) -> None:
        error = self._fails(verb, Permanent, status=status)
        assert error.status == status
        assert str(status) in str(error) or verb == "trigger"

    @pytest.mark.parametrize("status", FOR_GOOD)
    def test_asset_that_is_refused_has_a_problem(self, status: int) -> None:
        transport = self._with_fault("inspect", status=status)
        try:
            answer = asyncio.run(self._connected(transport).inspect(self._asset()))
        except Permanent as error:
            self._assert_secret_free(error, transport)
        else:
            assert answer.problem

    @pytest.mark.parametrize("status", PASSING)
    @pytest.mark.parametrize("verb", [*READS, "inspect"])
    def test_passing_trouble_of_a_read(self, verb: str, status: int) -> None:
        assert self._fails(verb, Transient, status=status).status == status

    @pytest.mark.parametrize("status", PASSING)
    def test_passing_trouble_of_a_trigger_leaves_doubt(self, status: int) -> None:
        unworked = status in self.spec.dialect.refused_unworked
        assert self._fails("trigger", Transient if unworked else InDoubt, status=status).status == status

    @pytest.mark.parametrize("status", sorted(REFUSED_UNWORKED))
    @pytest.mark.parametrize("verb", [*READS, "inspect", "trigger"])
    def test_too_fast(self, verb: str, status: int) -> None:
        error = self._fails(verb, Transient, status=status)
        assert isinstance(error, Transient)
        assert error.retry_after is None

    @pytest.mark.parametrize("verb", [*READS, "inspect", "trigger"])
    def test_too_fast_and_told_when(self, verb: str) -> None:
        error = self._fails(verb, Transient, status=429, headers={"Retry-After": "7"})
        assert isinstance(error, Transient)
        assert error.retry_after == 7
        sent = datetime(2020, 2, 2, 10, 0, 0, tzinfo=UTC)
        dates = {"Date": format_datetime(sent, usegmt=True), "Retry-After": "Sun, 02 Feb 2020 10:01:30 GMT"}
        error = self._fails(verb, Transient, status=429, headers=dates)
        assert isinstance(error, Transient)
        assert error.retry_after == 90

    @pytest.mark.parametrize("verb", [*READS, "inspect"])
    def test_web_page_instead_of_json(self, verb: str) -> None:
        self._fails(verb, Transient, status=200, body=PAGE, headers=HTML)

    def test_web_page_after_a_trigger_leaves_doubt(self) -> None:
        self._fails("trigger", InDoubt, status=200, body=PAGE, headers=HTML)

    @pytest.mark.parametrize("body", WRONG_FORMS, ids=range(len(WRONG_FORMS)))
    @pytest.mark.parametrize("verb", READS)
    def test_nonsense(self, verb: str, body: bytes) -> None:
        self._fails(verb, Transient, status=200, body=body)

    @pytest.mark.parametrize("body", [*WRONG_FORMS, b"{}"], ids=range(len(WRONG_FORMS) + 1))
    def test_trigger_without_a_run_leaves_doubt(self, body: bytes) -> None:
        if self.spec.shape is not Shape.JOB:
            pytest.skip(f"a connector of shape {self.spec.shape} gets no run")
        self._fails("trigger", InDoubt, status=200, body=body)

    @pytest.mark.parametrize("verb", [*READS, "inspect", "trigger"])
    def test_network_breaks_before_the_request_left(self, verb: str) -> None:
        self._fails(verb, Transient, broken="before")

    @pytest.mark.parametrize("verb", [*READS, "inspect"])
    def test_network_breaks_in_a_read(self, verb: str) -> None:
        self._fails(verb, Transient, broken="after")

    def test_network_breaks_after_the_trigger_left(self) -> None:
        self._fails("trigger", InDoubt, broken="after")

    @pytest.mark.parametrize("verb", [*READS, "trigger"])
    def test_redirects_are_not_followed(self, verb: str) -> None:
        target = {"Location": "https://login.example.test/in?ticket=one-time-word"}
        error = self._fails(verb, Permanent, status=302, headers=target)
        assert "login.example.test" in str(error)
        assert "one-time-word" not in str(error)

    @pytest.mark.parametrize("verb", [*READS, "trigger"])
    @pytest.mark.parametrize("status", [400, 401, 500])
    def test_secrets_that_are_echoed_go_no_further(
        self, verb: str, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        echo = " ".join(sorted(self._secrets()))
        bodies: list[Json] = [
            {"id": echo, "code": echo, "message": echo, "error": {"code": echo, "message": echo}},
            {"message": {"base": [echo]}, "error_description": echo},
            f"<html><title>{echo}</title></html>".encode(),
            echo.encode(),
        ]
        kind = Permanent if status < 500 else InDoubt if verb == "trigger" else Transient
        for body in bodies:
            self._fails(verb, kind, status=status, body=body)
        for secret in self._secrets():
            assert secret not in caplog.text

    # ------------------------------------------------------------------ following a run

    def _look(self, word: str) -> StillRunning | Outcome:
        self._skip_unless_job("look")
        ticket = self._ticket()
        transport = ScriptedTransport(*self.look_script(word), on_request=self.check_request)
        return asyncio.run(self._connected(transport).look(self._asset(), ticket))

    def test_every_documented_state_that_goes_on(self) -> None:
        for word in self.running:
            assert self._look(word) == StillRunning(word, known=True)

    def test_every_documented_end(self) -> None:
        for word, state in self.ended.items():
            answer = self._look(word)
            assert isinstance(answer, Outcome), f"{word} is an end"
            assert answer.state is state
            assert answer.state in OUTCOMES
            assert answer.word == word
            assert answer.reason
            assert answer.ended_at is None or answer.ended_at.utcoffset() == timedelta(0)

    def test_unheard_of_state_is_no_end(self) -> None:
        answer = self._look("warming_up_the_flux")
        assert answer == StillRunning("warming_up_the_flux", known=False)

    def test_cancel_or_say_that_it_cannot(self) -> None:
        if self.spec.can_cancel:
            pytest.skip("cancel is tested by the connector's own tests")
        transport = ScriptedTransport()
        with pytest.raises(Unsupported) as caught:
            asyncio.run(self._connected(transport).cancel(self._asset(), Ticket(self.run_id)))
        assert str(caught.value)
        assert not transport.requests

    # ------------------------------------------------------------------ after a crash

    def _recent(self, runs: Sequence[RecentRun], since: datetime) -> tuple[Ticket, ...]:
        self._skip_unless_job("find_recent")
        transport = ScriptedTransport(*self.recent_script(runs), on_request=self.check_request)
        return asyncio.run(self._connected(transport).find_recent(self._asset(), since))

    def test_finds_the_run_that_nobody_wrote_down(self) -> None:
        since = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
        made = since + timedelta(seconds=3)
        (ticket,) = self._recent([RecentRun(self.run_id, made)], since)
        assert ticket.id == self.run_id
        assert ticket.created_at == made
        transport = ScriptedTransport(*self.look_script(next(iter(self.ended))))
        followed = asyncio.run(self._connected(transport).look(self._asset(), ticket))
        assert isinstance(followed, Outcome), "an adopted run can be followed like one of our own"

    def test_finds_nothing_where_there_is_nothing(self) -> None:
        assert self._recent([], datetime(2026, 3, 1, tzinfo=UTC)) == ()

    def test_leaves_out_older_runs_and_other_parameters(self) -> None:
        since = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
        runs = [
            RecentRun("000000000004", since + timedelta(seconds=9), ours=not self._asset().parameters),
            RecentRun("000000000003", since + timedelta(seconds=5)),
            RecentRun("000000000002", since),
            RecentRun("000000000001", since - timedelta(milliseconds=1)),
        ]
        wanted = [run.id for run in runs if run.ours and run.created_at >= since]
        assert [ticket.id for ticket in self._recent(runs, since)] == wanted
