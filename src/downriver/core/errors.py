"""The whole error tree, named for what the caller should do.

::

    DownriverError            anything Downriver says on purpose; `str()` is a sentence for a person
    ├── ConfigError           downriver.yml, an option or the environment is wrong: fix it and start again
    ├── VaultError            the vault cannot be opened or read: locked, wrong key, tampered row
    │   └── SecretMissing     the vault is fine and has no secret of this name: set it
    ├── StoreError            the database cannot be used: full, read-only, locked, newer than this version
    ├── BadInput              what was handed over cannot be read: an artifact, a body, a selector
    ├── Fenced                another driver has taken this mailbox over: stop, write nothing more
    ├── NotFound              the thing named does not exist here: a dashboard, an event, a refresh
    └── CallError             a call to somebody else's API did not do what was asked
        ├── Transient         try again later; nothing happened there (carries `retry_after`)
        ├── InDoubt           it may or may not have happened: look before trying again
        ├── Permanent         trying again changes nothing; a person must change something
        └── Unsupported       the tool cannot do this at all (cancel, list, this kind of asset)

The message always says what happened, to which thing, and what to do next. It never holds a secret,
a full header, or SQL text.
"""

from __future__ import annotations


class DownriverError(Exception):
    """Anything Downriver says on purpose. `str(error)` is a sentence for a person."""


class ConfigError(DownriverError):
    """Configuration is wrong; the message names file, line and remedy where they are known."""


class VaultError(DownriverError):
    """The vault cannot be opened or read."""


class SecretMissing(VaultError):
    """The vault holds no secret called `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The vault has no secret `{name}`: set it with `downriver secrets set {name}`.")
        self.name = name


class StoreError(DownriverError):
    """The database cannot be used right now, or not by this version."""


class BadInput(DownriverError):
    """Something handed over from outside cannot be read. `code` is a short word for listings: `not_json`."""

    def __init__(self, message: str, *, code: str = "bad_input") -> None:
        super().__init__(message)
        self.code = code


class Fenced(DownriverError):
    """Another driver has taken this mailbox over; the work under way here must stop without writing."""


class NotFound(DownriverError):
    """The thing named does not exist here."""


class CallError(DownriverError):
    """A call to somebody else's API did not do what was asked.

    `status` is the HTTP status when there was an answer, `code` the vendor's own error word when it
    gave one, `detail` a short excerpt of the answer (redacted, at most a few hundred characters).
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, detail: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail


class Transient(CallError):
    """Nothing happened there; try again later. `retry_after` is in seconds, when the answer said so."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        code: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, detail=detail)
        self.retry_after = retry_after


class InDoubt(CallError):
    """The request may have taken effect: look for it (`find_recent`) before trying again."""


class Permanent(CallError):
    """Trying again changes nothing; a person must change something."""


class Unsupported(CallError):
    """The tool cannot do this at all."""
