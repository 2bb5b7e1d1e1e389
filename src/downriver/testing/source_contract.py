"""What every source must keep, as a test suite to inherit.

::

    class TestMySource(SourceContract):
        def make(self, *keys): return MySource("mine", [SecretStr(key) for key in keys])
        def delivery(self, key): return Delivery({"x-signature": sign(key, BODY)}, BODY)

Needs pytest, nothing else: the cases are plain loops.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from downriver.core.errors import BadInput
from downriver.sources.base import Refused, Verified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downriver.sources.base import Delivery, Source

_AT: Final = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
_KEY: Final = "the-right-key"
_OTHER_KEY: Final = "another-key-entirely"
_UNUSABLE: Final = {
    "nothing": b"",
    "white space": b" \n",
    "half an object": b'{"a": 1',
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "no field at all": b"{}",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "deep lists": b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "a marked secret and a broken end": b'{"password": "hunter2-planted", ',
}
_ODD_VALUES: Final = (
    "", " ", "\t", "0", "\x00", "\x7f", "é" * 64, "\xff" * 64, "٣" * 64, "0" * 100_000, "Bearer x", "Basic eDp5",
)  # fmt: skip


class SourceContract:
    """Inherit it in a test module, under a name that begins with `Test`."""

    signs_body: bool = True
    """Whether the credentials depend on the body (a signature), or not (a token)."""

    def make(self, *keys: str) -> Source:
        """A source that takes deliveries made with any of `keys`."""
        raise NotImplementedError

    def delivery(self, key: str) -> Delivery:
        """A usable delivery, made with `key`; the same for the same key."""
        raise NotImplementedError

    # -- genuine or not ---------------------------------------------------------------------------

    def test_takes_a_genuine_delivery(self) -> None:
        delivery = self.delivery(_KEY)
        assert isinstance(self.make(_KEY).verify(delivery.headers, delivery.body), Verified)

    def test_takes_any_of_several_keys_and_tells_them_apart(self) -> None:
        source = self.make(_KEY, _OTHER_KEY)
        said = set()
        for key in (_KEY, _OTHER_KEY):
            delivery = self.delivery(key)
            verdict = source.verify(delivery.headers, delivery.body)
            assert isinstance(verdict, Verified)
            assert key not in verdict.key_fingerprint
            said.add(verdict.key_fingerprint)
        assert len(said) == 2, "which key fitted must be told apart"

    def test_refuses_what_another_key_made(self) -> None:
        delivery = self.delivery(_OTHER_KEY)
        self._refused(delivery.headers, delivery.body)

    def test_refuses_a_delivery_without_headers(self) -> None:
        delivery = self.delivery(_KEY)
        self._refused({}, delivery.body)

    def test_refuses_every_changed_credential(self) -> None:
        delivery = self.delivery(_KEY)
        source = self.make(_KEY)
        names = [
            name
            for name in delivery.headers
            if isinstance(source.verify({**delivery.headers, name: "0"}, delivery.body), Refused)
        ]
        assert names, "no header carries the credentials"
        for name in names:
            value = delivery.headers[name]
            for at in range(len(value)):
                for new in {"0", "f", "A", " ", ""} - {value[at]}:
                    changed = {**delivery.headers, name: value[:at] + new + value[at + 1 :]}
                    self._refused(changed, delivery.body)

    def test_refuses_every_changed_body(self) -> None:
        delivery = self.delivery(_KEY)
        if not self.signs_body:
            pytest.skip("the credentials of this source do not depend on the body")
        body = delivery.body
        changes = [body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] for at in range(len(body))]
        changes += [b"", body[:-1], body + b"\n", b" " + body]
        for changed in changes:
            self._refused(delivery.headers, changed)

    def test_odd_header_values_are_refused_and_never_raise(self) -> None:
        delivery = self.delivery(_KEY)
        for value in _ODD_VALUES:
            self._refused(dict.fromkeys(delivery.headers, value), delivery.body)

    def _refused(self, headers: Mapping[str, str], body: bytes) -> None:
        """The delivery is refused, with a code and a sentence that give away neither key nor header."""
        verdict = self.make(_KEY).verify(headers, body)
        assert isinstance(verdict, Refused), "accepted what is not genuine"
        assert verdict.code.replace("_", "").isalnum(), verdict.code
        assert verdict.detail.endswith("."), verdict.detail
        for secret in (_KEY, _OTHER_KEY, *(value for value in headers.values() if len(value) > 12)):
            assert secret not in verdict.detail

    # -- what it says -----------------------------------------------------------------------------

    def test_reads_its_own_delivery(self) -> None:
        source = self.make(_KEY)
        event = source.parse(self.delivery(_KEY).body, _AT)
        assert event.source == source.name
        assert event.received_at == _AT
        assert event.event_id
        moments = [event.occurred_at]
        if event.run is not None:
            moments += [event.run.started_at, event.run.finished_at]
        assert all(moment is None or moment.tzinfo is UTC for moment in moments), "times are UTC and say so"

    def test_the_same_bytes_are_the_same_event(self) -> None:
        body = self.delivery(_KEY).body
        assert self.make(_KEY).parse(body, _AT) == self.make(_KEY).parse(body, _AT)

    @pytest.mark.parametrize("what", list(_UNUSABLE))
    def test_an_unusable_body_is_bad_input(self, what: str) -> None:
        with pytest.raises(BadInput) as caught:
            self.make(_KEY).parse(_UNUSABLE[what], _AT)
        assert caught.value.code.replace("_", "").isalnum()
        assert str(caught.value).endswith(".")
        assert "planted" not in str(caught.value), "the error quotes the body"

    # -- keeping secrets --------------------------------------------------------------------------

    def test_shows_no_key(self) -> None:
        source = self.make(_KEY, _OTHER_KEY)
        delivery = self.delivery(_KEY)
        shown = repr(source) + str(source) + repr(delivery) + repr(getattr(source, "__dict__", {}))
        assert _KEY not in shown
        assert _OTHER_KEY not in shown
