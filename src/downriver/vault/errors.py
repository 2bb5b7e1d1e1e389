"""What can be wrong with the vault. A secret that is not there is `core.errors.SecretMissing`."""

from __future__ import annotations

from downriver.core.errors import VaultError


class KeyUnusable(VaultError):
    """A key was given, but it cannot be used: too short, or in a file that others may read."""


class KeyLost(VaultError):
    """There are secrets, and no key to open them."""


class WrongKey(VaultError):
    """There is a key, and it is not the one that sealed the secrets."""


class Tampered(VaultError):
    """What the database holds is not what the vault put there."""
