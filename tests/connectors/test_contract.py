"""The contract catches the defects it is there for: connectors that are each wrong in one way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel

from downriver.connectors.base import Identity
from downriver.connectors.http import HttpClient
from downriver.connectors.mode import SPEC, ModeConfig, ModeConnector
from downriver.core.errors import InDoubt, Permanent, Transient
from downriver.core.model import Asset, Outcome, StillRunning, Ticket
from downriver.core.states import RefreshState
from downriver.testing import ConnectorContract, Exchange, ScriptedTransport

from .test_mode import TestModeContract as ModeContract


class SendsAgain(ModeConnector):
    async def trigger(self, asset: Asset) -> Ticket:
        try:
            return await super().trigger(asset)
        except InDoubt:
            return await super().trigger(asset)


class CallsDoubtPassing(ModeConnector):
    async def trigger(self, asset: Asset) -> Ticket:
        try:
            return await super().trigger(asset)
        except InDoubt as error:
            raise Transient(str(error), status=error.status) from None


class EndsOnAnything(ModeConnector):
    async def look(self, asset: Asset, ticket: Ticket) -> StillRunning | Outcome:
        answer = await super().look(asset, ticket)
        if isinstance(answer, StillRunning) and not answer.known:
            return Outcome(RefreshState.SUCCEEDED, "it says something, so it must be done", answer.word)
        return answer


class ForgetsCompleted(ModeConnector):
    async def look(self, asset: Asset, ticket: Ticket) -> StillRunning | Outcome:
        answer = await super().look(asset, ticket)
        return StillRunning(answer.word) if answer.word == "completed" else answer


class TellsItsSecret(ModeConnector):
    async def check(self) -> Identity:
        try:
            return await super().check()
        except Permanent as error:
            secret = self._config.secret.get_secret_value()
            raise Permanent(f"{secret} was not accepted", status=error.status) from None


class HangsTheSecretOnTheCause(ModeConnector):
    async def check(self) -> Identity:
        try:
            return await super().check()
        except Permanent as error:
            secret = self._config.secret.get_secret_value()
            raise Permanent(str(error), status=error.status) from RuntimeError(secret)


class LogsItsSecret(ModeConnector):
    async def check(self) -> Identity:
        logging.getLogger("careless").debug("checking with %s", self._config.secret.get_secret_value())
        return await super().check()


class PutsItsSecretInTheAddress(ModeConnector):
    async def check(self) -> Identity:
        secret = {"token": self._config.token.get_secret_value()}
        await self._client.get_json("/api/verify", secret, what="check the API token")
        return Identity("me", "acme")


class AdoptsStrangers(ModeConnector):
    def _may_be_ours(self, run: object, asset: Asset) -> bool:
        return True


class AdoptsTheOld(ModeConnector):
    async def find_recent(self, asset: Asset, since: datetime) -> tuple[Ticket, ...]:
        return await super().find_recent(asset, datetime.min.replace(tzinfo=since.tzinfo))


class FallsOverNonsense(ModeConnector):
    async def check(self) -> Identity:
        who = await self._client.get_json("/api/verify", what="check the API token")
        return Identity(who["workspace"], "acme")


class SaysNothingOfCancel(ModeConnector):
    async def cancel(self, asset: Asset, ticket: Ticket) -> None:
        return None


CASES: list[tuple[type[ModeConnector], Callable[[ConnectorContract, Any], None]]] = [
    (SendsAgain, lambda suite, log: suite.test_network_breaks_after_the_trigger_left()),
    (CallsDoubtPassing, lambda suite, log: suite.test_network_breaks_after_the_trigger_left()),
    (CallsDoubtPassing, lambda suite, log: suite.test_passing_trouble_of_a_trigger_leaves_doubt(503)),
    (CallsDoubtPassing, lambda suite, log: suite.test_web_page_after_a_trigger_leaves_doubt()),
    (EndsOnAnything, lambda suite, log: suite.test_unheard_of_state_is_no_end()),
    (ForgetsCompleted, lambda suite, log: suite.test_every_documented_end()),
    (TellsItsSecret, lambda suite, log: suite.test_refused_for_good("check", 401)),
    (HangsTheSecretOnTheCause, lambda suite, log: suite.test_refused_for_good("check", 401)),
    (LogsItsSecret, lambda suite, log: suite.test_good_day("check", log)),
    (PutsItsSecretInTheAddress, lambda suite, log: suite.test_good_day("check", log)),
    (AdoptsStrangers, lambda suite, log: suite.test_leaves_out_older_runs_and_other_parameters()),
    (AdoptsTheOld, lambda suite, log: suite.test_leaves_out_older_runs_and_other_parameters()),
    (FallsOverNonsense, lambda suite, log: suite.test_nonsense("check", b"[]")),
    (SaysNothingOfCancel, lambda suite, log: suite.test_cancel_or_say_that_it_cannot()),
]


def suite_of(kind: type[ModeConnector]) -> ConnectorContract:
    def build(config: BaseModel, client: HttpClient) -> ModeConnector:
        assert isinstance(config, ModeConfig)
        return kind(config, client)

    made: ConnectorContract = type("Suite", (ModeContract,), {"spec": replace(SPEC, build=build)})()
    return made


@pytest.mark.parametrize(("kind", "case"), CASES, ids=[f"{at}-{kind.__name__}" for at, (kind, _) in enumerate(CASES)])
def test_a_wrong_connector_fails(
    kind: type[ModeConnector],
    case: Callable[[ConnectorContract, Any], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # `pytest.raises` that saw nothing ends in Failed; a connector that falls over ends in its own error.
    with pytest.raises((AssertionError, pytest.fail.Exception, TypeError)):
        case(suite_of(kind), caplog)
    caplog.clear()
    case(suite_of(ModeConnector), caplog)  # the same case passes for the right one


async def test_the_script_refuses_what_nobody_expected() -> None:
    transport = ScriptedTransport(Exchange("GET", "/one", body={}))
    client = HttpClient(transport, "https://x.test", {}, tool="X")
    with pytest.raises(AssertionError, match="nobody expected POST /one; left in the script: GET /one"):
        await client.post_json("/one", {}, what="try")
    await client.get_json("/one", what="try")
    with pytest.raises(AssertionError, match="left in the script: nothing"):
        await client.get_json("/one", what="try")
    assert len(transport.requests) == 3
    assert len(transport.writes) == 1
