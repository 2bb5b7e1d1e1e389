"""Outgoing webhooks of the dbt platform stand-in: subscriptions, events, signatures, deliveries, retries.

Source: docs.getdbt.com, "Webhooks for your jobs", a body captured in May 2023, and the public OpenAPI
document of API v3 (facts on dbt, section 1). What is known is done as known: compact JSON in the order of
the captured body, `Authorization` = bare lowercase hex HMAC-SHA256 over the exact bytes, ten seconds for
an answer, any 2xx is a success, five retries, deactivation after 1,000 failed deliveries or 7 days of them.
What is *not* documented, and chosen here: the spacing of retries (2, 4, 8, 16, 32 s), that a retry carries
the same bytes and event id, that a redirect is not followed and counts as failed, that a "failed delivery"
is an event whose last retry failed, the other request headers.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import aiohttp
import msgspec

EventType = Literal["job.run.started", "job.run.completed", "job.run.errored"]
EVENT_TYPES: tuple[EventType, ...] = ("job.run.started", "job.run.completed", "job.run.errored")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KSUID_EPOCH = 1_400_000_000


class EventData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`data` of a webhook. Every id is a string of digits; key order is that of the captured body."""

    job_id: str
    job_name: str
    run_id: str
    environment_id: str
    environment_name: str
    dbt_version: str
    project_name: str
    project_id: str
    run_status: str
    """`Running`, `Success` or `Errored` (the Admin API says `Error`)."""
    run_status_code: int
    run_status_message: str = "None"
    """The literal text `None` when there is no message."""
    run_reason: str = ""
    run_started_at: str
    run_finished_at: str | msgspec.UnsetType = msgspec.UNSET
    run_errored_at: str | msgspec.UnsetType = msgspec.UNSET


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A webhook's body; `account_id` is a number, every other id a string."""

    account_id: int
    event_id: str
    timestamp: str
    event_type: str
    webhook_id: str
    webhook_name: str
    data: EventData

    def encoded(self) -> bytes:
        """The exact bytes on the wire: compact, in field order."""
        return msgspec.json.encode(self)


def sign(secret: str, body: bytes) -> str:
    """HMAC-SHA256 as the `Authorization` header carries it: lowercase hex, no scheme word."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def precise(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 with up to nine fraction digits, trailing zeros dropped."""
    whole, fraction = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def ksuid(at: float | None = None) -> str:
    """A KSUID: 27 characters of base 62 that sort by the second they were made in."""
    seconds = int(time.time() if at is None else at) - _KSUID_EPOCH
    number = (seconds << 128) | secrets.randbits(128)
    letters: list[str] = []
    for _ in range(27):
        number, digit = divmod(number, 62)
        letters.append(_BASE62[digit])
    return "".join(reversed(letters))


def sample(event_type: EventType) -> bytes:
    """The documented sample the "Test endpoint" button sends: hard-coded, not of any real project."""
    data: dict[str, object] = {
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
        "runStartedAt": "2023-01-31T19:28:07Z",
    }
    if event_type == "job.run.started":
        data |= {"runStatus": "Running", "runStatusCode": 3}
    elif event_type == "job.run.errored":
        data |= {"runStatus": "Errored", "runStatusCode": 20, "runErroredAt": "2023-01-31T21:15:20Z"}
    else:
        data |= {"runFinishedAt": "2023-01-31T19:29:32Z"}
    return msgspec.json.encode(
        {
            "accountId": 1,
            "webhookId": "wsu_12345abcde",
            "eventId": "wev_2L6Z3l8uPedXKPq9D2nWbPIip7Z",
            "timestamp": "2023-01-31T19:28:15.742843678Z",
            "eventType": event_type,
            "webhookName": "test",
            "data": data,
        }
    )


class DeliveryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How webhooks are sent. Seconds and counts."""

    timeout: float = 10.0
    """Seconds until an answer counts as failed, even if it comes later."""
    retries: int = 5
    first_delay: float = 2.0
    """Seconds before the first retry; the real spacing is not documented."""
    delay_factor: float = 2.0
    same_event_id: bool = True
    """Whether a retry repeats the event id (not documented; likely)."""
    deactivate_after: int = 1_000
    """Failed deliveries in a row until the subscription is switched off."""
    deactivate_after_days: float = 7.0

    def delay(self, retry: int) -> float:
        """Seconds before retry number `retry` (1 is the first)."""
        return float(self.first_delay * self.delay_factor ** (retry - 1))


@dataclass(slots=True)
class Subscription:
    """One webhook subscription. Its `secret` is shown once, in the answer to the create call."""

    id: str
    name: str
    client_url: str
    event_types: tuple[str, ...]
    job_ids: tuple[int, ...]
    """Empty: every job of the account."""
    secret: str = field(repr=False)
    description: str = ""
    active: bool = True
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    last_status: int = 0
    """Status of the newest answer; 0 before the first send, or when there was none."""
    dispatched: float | None = None
    deactivate_reason: str = ""
    failures_in_a_row: int = 0
    failing_since: float | None = None

    def wants(self, event_type: str, job_id: int) -> bool:
        return self.active and event_type in self.event_types and (not self.job_ids or job_id in self.job_ids)


@dataclass(slots=True)
class Attempt:
    """One POST of a delivery. `status` 0: no answer within the time limit, or no connection."""

    at: float
    status: int
    error: str
    seconds: float
    response_body: str


@dataclass(slots=True, eq=False)
class Delivery:
    """One event on its way to one subscription, with what became of it."""

    event_id: str
    subscription: Subscription = field(repr=False)
    event_type: str
    job_id: int
    run_id: int
    body: bytes = field(repr=False)
    state: Literal["pending", "delivered", "failed", "dropped"] = "pending"
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def status(self) -> int:
        return self.attempts[-1].status if self.attempts else 0

    def row(self) -> dict[str, object]:
        """As the control API shows it."""
        return {
            "event_id": self.event_id,
            "subscription_id": self.subscription.id,
            "event_type": self.event_type,
            "job_id": self.job_id,
            "run_id": self.run_id,
            "state": self.state,
            "attempts": self.attempts,
            "body": self.body.decode(),
        }


class Webhooks:
    """All subscriptions of the account and every delivery made for them."""

    def __init__(self, policy: DeliveryPolicy) -> None:
        self.policy = policy
        self.subscriptions: dict[str, Subscription] = {}
        self.deliveries: list[Delivery] = []
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def subscribe(
        self,
        *,
        name: str,
        client_url: str,
        event_types: tuple[str, ...],
        job_ids: tuple[int, ...] = (),
        description: str = "",
        active: bool = True,
        secret: str | None = None,
    ) -> Subscription:
        """A new subscription; without `secret` a random one is made."""
        made = Subscription(
            id=f"wsu_{ksuid()}",
            name=name,
            client_url=client_url,
            event_types=event_types,
            job_ids=job_ids,
            description=description,
            active=active,
            secret=secret or secrets.token_urlsafe(32),
        )
        self.subscriptions[made.id] = made
        return made

    def events(self, subscription_id: str) -> Iterator[Delivery]:
        """The deliveries of one subscription, newest first, one for each event id."""
        shown: set[str] = set()
        for delivery in reversed(self.deliveries):
            if delivery.subscription.id == subscription_id and delivery.event_id not in shown:
                shown.add(delivery.event_id)
                yield delivery

    def emit(
        self,
        account_id: int,
        event_type: EventType,
        data: EventData,
        *,
        copies: int = 1,
        drop: bool = False,
    ) -> list[Delivery]:
        """Send an event to every subscription that wants it; each subscription gets its own event id.

        `copies` > 1 delivers the same bytes that often at once (a duplicate on purpose); `drop` records
        the event and sends nothing (a webhook lost on purpose). Needs a running event loop.
        """
        made: list[Delivery] = []
        for one in self.subscriptions.values():
            if not one.wants(event_type, int(data.job_id)):
                continue
            event = Event(
                account_id=account_id,
                event_id=f"wev_{ksuid()}",
                timestamp=precise(time.time_ns()),
                event_type=event_type,
                webhook_id=one.id,
                webhook_name=one.name,
                data=data,
            )
            body = event.encoded()
            for _ in range(copies):
                delivery = Delivery(event.event_id, one, event_type, int(data.job_id), int(data.run_id), body)
                self.deliveries.append(delivery)
                made.append(delivery)
                if drop:
                    delivery.state = "dropped"
                else:
                    self._spawn(delivery)
        return made

    def redeliver(self, delivery: Delivery) -> Delivery:
        """Send the same bytes once more, as a new delivery."""
        again = Delivery(
            delivery.event_id,
            delivery.subscription,
            delivery.event_type,
            delivery.job_id,
            delivery.run_id,
            delivery.body,
        )
        self.deliveries.append(again)
        self._spawn(again)
        return again

    async def test(self, one: Subscription) -> Attempt:
        """The "Test endpoint" event, once, without retries."""
        wanted = next((kind for kind in EVENT_TYPES if kind in one.event_types), EVENT_TYPES[1])
        return await self._post(one, sample(wanted))

    async def settled(self) -> None:
        """Wait until no delivery is under way any more."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def stop(self) -> None:
        """Break off what is under way and close the client."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def forget(self) -> None:
        """No subscriptions, no deliveries; what is under way is broken off."""
        for task in self._tasks:
            task.cancel()
        self.subscriptions.clear()
        self.deliveries.clear()

    def _spawn(self, delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(self._deliver(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, delivery: Delivery) -> None:
        one = delivery.subscription
        for retry in range(self.policy.retries + 1):
            if retry:
                await asyncio.sleep(self.policy.delay(retry))
                if not self.policy.same_event_id:
                    self._renumber(delivery)
            attempt = await self._post(one, delivery.body)
            delivery.attempts.append(attempt)
            if 200 <= attempt.status < 300:
                delivery.state = "delivered"
                one.failures_in_a_row = 0
                one.failing_since = None
                return
        delivery.state = "failed"
        self._note_failure(one)

    def _renumber(self, delivery: Delivery) -> None:
        event = msgspec.structs.replace(msgspec.json.decode(delivery.body, type=Event), event_id=f"wev_{ksuid()}")
        delivery.event_id = event.event_id
        delivery.body = event.encoded()

    def _note_failure(self, one: Subscription) -> None:
        now = time.time()
        one.failures_in_a_row += 1
        if one.failing_since is None:
            one.failing_since = now
        too_long = now - one.failing_since >= self.policy.deactivate_after_days * 86_400
        if one.active and (too_long or one.failures_in_a_row >= self.policy.deactivate_after):
            one.active = False
            one.deactivate_reason = f"{one.failures_in_a_row} consecutive failed deliveries"
            one.updated = now

    async def _post(self, one: Subscription, body: bytes) -> Attempt:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        headers = {"Authorization": sign(one.secret, body), "Content-Type": "application/json"}
        at, begun = time.time(), time.monotonic()
        status, error, text = 0, "", ""
        try:
            async with self._session.post(
                one.client_url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.policy.timeout),
            ) as response:
                text = (await response.content.read(1_000)).decode(errors="replace")
                status = response.status
        except TimeoutError:
            error = f"no answer within {self.policy.timeout:g} s"
        except (aiohttp.ClientError, ValueError) as problem:
            error = f"{type(problem).__name__}: {problem}"
        one.last_status = status
        one.dispatched = at
        return Attempt(at, status, error, time.monotonic() - begun, text)
