from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from downriver.core.errors import VaultError
from downriver.store.db import Store
from downriver.store.tables import secret
from downriver.vault import Vault
from downriver.vault.keys import FILE_NAME, NEXT_FILE_NAME, new_key, write_file

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PLANTED = "planted-value-7f3a"


@pytest.fixture
def store(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'a.db'}")
    yield store
    store.close()


def open_vault(store, tmp_path, environ=None):
    return Vault.open(store, tmp_path, environ or {}, lambda: NOW)


def test_a_secret_comes_back_and_is_nowhere_in_the_file(store, tmp_path):
    vault = open_vault(store, tmp_path)
    vault.set("MODE_API_TOKEN", SecretStr(PLANTED))
    assert open_vault(store, tmp_path).get("MODE_API_TOKEN").get_secret_value() == PLANTED
    assert PLANTED not in repr(vault) + repr(vault.list())
    store.write_now(lambda conn: None)
    for path in tmp_path.iterdir():
        assert PLANTED.encode() not in path.read_bytes()


def test_the_key_file_is_private_and_must_stay_so(store, tmp_path):
    open_vault(store, tmp_path)
    path = tmp_path / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(VaultError, match="chmod 600"):
        open_vault(store, tmp_path)


def test_a_lost_key_is_said(store, tmp_path):
    open_vault(store, tmp_path).set("A", SecretStr("x"))
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(VaultError, match="key is gone"):
        open_vault(store, tmp_path)


@pytest.mark.parametrize("environ", [{"DOWNRIVER_SECRET_KEY": "another key, long enough"}])
def test_a_wrong_key_is_said(store, tmp_path, environ):
    open_vault(store, tmp_path)
    with pytest.raises(VaultError, match="not this vault's key"):
        open_vault(store, tmp_path, environ)


def test_a_short_key_is_refused(store, tmp_path):
    with pytest.raises(VaultError, match="shorter"):
        open_vault(store, tmp_path, {"DOWNRIVER_SECRET_KEY": "short"})


@pytest.mark.parametrize("damage", ["flip", "cut", "swap"])
def test_a_tampered_row_is_said(store, tmp_path, damage):
    vault = open_vault(store, tmp_path)
    vault.set("A", SecretStr("first"))
    vault.set("B", SecretStr("second"))

    def tamper(conn):
        a, b = (conn.execute(sa.select(secret.c.ciphertext).where(secret.c.name == n)).scalar() for n in "AB")
        changed = {"flip": a[:-1] + bytes([a[-1] ^ 1]), "cut": a[:10], "swap": b}[damage]
        conn.execute(secret.update().where(secret.c.name == "A").values(ciphertext=changed))

    store.write_now(tamper)
    with pytest.raises(VaultError, match="`A` was changed"):
        vault.get("A")
    assert vault.get("B").get_secret_value() == "second"


def test_rotation_keeps_every_value_and_drops_the_old_key(store, tmp_path):
    vault = open_vault(store, tmp_path)
    vault.set("A", SecretStr("first"))
    old = (tmp_path / FILE_NAME).read_text()
    vault.rotate_key()
    assert (tmp_path / FILE_NAME).read_text() != old
    assert not (tmp_path / NEXT_FILE_NAME).exists()
    assert open_vault(store, tmp_path).get("A").get_secret_value() == "first"


def test_a_rotation_that_died_before_the_rows_changed_leaves_the_old_key(store, tmp_path):
    open_vault(store, tmp_path).set("A", SecretStr("first"))
    write_file(tmp_path / NEXT_FILE_NAME, new_key())
    assert open_vault(store, tmp_path).get("A").get_secret_value() == "first"
    assert not (tmp_path / NEXT_FILE_NAME).exists()


def test_a_rotation_that_died_after_the_rows_changed_takes_the_new_key(store, tmp_path):
    vault = open_vault(store, tmp_path)
    vault.set("A", SecretStr("first"))
    old = (tmp_path / FILE_NAME).read_text()
    vault.rotate_key()
    (tmp_path / FILE_NAME).replace(tmp_path / NEXT_FILE_NAME)
    (tmp_path / FILE_NAME).write_text(old)
    (tmp_path / FILE_NAME).chmod(0o600)
    assert open_vault(store, tmp_path).get("A").get_secret_value() == "first"
    assert not (tmp_path / NEXT_FILE_NAME).exists()


@pytest.mark.parametrize("name", ["", "1A", "a b", "A-B", "x" * 129])
def test_names_are_checked(store, tmp_path, name):
    with pytest.raises(VaultError, match="no name"):
        open_vault(store, tmp_path).set(name, SecretStr("x"))


@pytest.mark.parametrize("value", ["", "x" * 70_000])
def test_values_are_checked_and_never_repeated(store, tmp_path, value):
    with pytest.raises(VaultError) as caught:
        open_vault(store, tmp_path).set("A", SecretStr(value))
    assert len(str(caught.value)) < 200


def test_a_missing_secret_says_how_to_set_it(store, tmp_path):
    with pytest.raises(VaultError, match="downriver secrets set MODE_API_TOKEN"):
        open_vault(store, tmp_path).get("MODE_API_TOKEN")


def test_last_use_is_recorded_in_one_write(store, tmp_path):
    vault = open_vault(store, tmp_path)
    vault.set("A", SecretStr("first"))
    assert vault.list()[0].last_used_at is None
    vault.get("A")
    vault.note_use()
    assert vault.list()[0].last_used_at == NOW


def test_removing(store, tmp_path):
    vault = open_vault(store, tmp_path)
    vault.set("A", SecretStr("first"))
    assert vault.remove("A")
    assert not vault.remove("A")
    assert vault.list() == []
