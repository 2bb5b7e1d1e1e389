"""Sealing and opening with one key: AES-256-GCM of the `cryptography` package, nothing home-made.

From the key that a person keeps, two keys are derived: one seals, one makes fingerprints. A key of 32
random bytes goes through HKDF-SHA256, a passphrase through scrypt first (N=2^15, r=8, p=3: about a
quarter of a second and 32 MiB), both with a random salt that is stored beside the secrets.

A sealed value is `1 | nonce (12 bytes) | ciphertext and tag`. Its purpose, the key's id and the secret's
name are authenticated with it: a row cannot stand in for another, nor outlive a rotation.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from downriver.vault.errors import KeyUnusable, Tampered

KEY_BYTES: Final = 32
MIN_PASSPHRASE: Final = 16
_NONCE: Final = 12
_TAG: Final = 16
_VERSION: Final = b"\x01"
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")
_CHECK: Final = b"downriver"


@dataclass(frozen=True, slots=True)
class Material:
    """A key as a person keeps it. `origin` says where it was found, for messages."""

    secret: bytes = field(repr=False)
    is_passphrase: bool
    origin: str


def parse_key(text: str, origin: str) -> Material:
    """Read a key: 32 bytes in base64 (plain or URL-safe), or else a passphrase of 16 characters or more.

    Raises KeyUnusable for anything shorter.
    """
    text = text.strip()
    if _BASE64.fullmatch(text):
        try:
            raw = base64.b64decode(text.rstrip("=").translate(str.maketrans("-_", "+/")) + "=", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) == KEY_BYTES:
            return Material(raw, is_passphrase=False, origin=origin)
    if len(text) < MIN_PASSPHRASE:
        raise KeyUnusable(
            f"The key in {origin} is too short: give 32 random bytes in base64 (`openssl rand -base64 32` "
            f"makes some), or a passphrase of at least {MIN_PASSPHRASE} characters."
        )
    try:
        return Material(text.encode(), is_passphrase=True, origin=origin)
    except UnicodeEncodeError:
        raise KeyUnusable(f"The key in {origin} is not text in UTF-8: give one in base64.") from None


def new_key_text() -> str:
    """A new random key, as `parse_key` reads it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def new_key_id() -> str:
    """A new random name for a key. It says nothing of the key."""
    return secrets.token_hex(8)


def new_salt() -> bytes:
    """A new random salt."""
    return secrets.token_bytes(16)


class Box:
    """Seals and opens with one key. Made from its material, its id and its salt."""

    __slots__ = ("_fingerprint_key", "_seal", "key_id", "salt")

    def __init__(self, material: Material, key_id: str, salt: bytes) -> None:
        root = material.secret
        if material.is_passphrase:
            root = Scrypt(salt=salt, length=KEY_BYTES, n=2**15, r=8, p=3).derive(root)
        self.key_id = key_id
        self.salt = salt
        self._seal = AESGCM(_derived(root, salt, b"downriver vault v1: seal"))
        self._fingerprint_key = _derived(root, salt, b"downriver vault v1: fingerprint")

    def __repr__(self) -> str:
        """Without the key."""
        return f"Box({self.key_id})"

    def seal(self, name: str, value: bytes) -> bytes:
        """`value`, to be opened under the same name with the same key only."""
        return self._sealed(b"secret", name, value)

    def open(self, name: str, sealed: bytes) -> bytes:
        """What `seal` was given. Raises Tampered when these are not the bytes it made for `name`."""
        value = self._opened(b"secret", name, sealed)
        if value is None:
            raise Tampered(
                f"The secret `{name}` cannot be opened, though the key is right: its row in the database was "
                f"changed or exchanged. Find out who writes there, and set it again: `downriver secrets set {name}`."
            )
        return value

    def check_value(self) -> bytes:
        """Bytes that `fits` recognises."""
        return self._sealed(b"check", "", _CHECK)

    def fits(self, check_value: bytes) -> bool:
        """Whether `check_value` was made with this key."""
        return self._opened(b"check", "", check_value) == _CHECK

    def fingerprint(self, name: str, value: bytes) -> str:
        """8 hex digits that change with the value. Without the key nobody can try values against them."""
        message = name.encode() + b"\0" + value
        return hmac.digest(self._fingerprint_key, message, "sha256")[:4].hex()

    def _sealed(self, purpose: bytes, name: str, value: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return _VERSION + nonce + self._seal.encrypt(nonce, value, self._bound(purpose, name))

    def _opened(self, purpose: bytes, name: str, sealed: bytes) -> bytes | None:
        if sealed[:1] != _VERSION or len(sealed) < 1 + _NONCE + _TAG:
            return None
        nonce, rest = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            return self._seal.decrypt(nonce, rest, self._bound(purpose, name))
        except InvalidTag:
            return None

    def _bound(self, purpose: bytes, name: str) -> bytes:
        # No part can hold a NUL: purposes are ours, ids are hex, names are letters, digits and `_`.
        return b"\0".join((_VERSION, purpose, self.key_id.encode(), name.encode()))


def _derived(root: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(root)
