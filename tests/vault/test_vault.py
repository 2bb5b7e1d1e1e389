import re
import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from downriver.core.errors import SecretMissing, VaultError
from downriver.store import secrets as rows
from downriver.store.db import Store
from downriver.store.tables import secret, vault_key
from downriver.vault import Vault
from downriver.vault.box import new_key_text
from downriver.vault.errors import KeyLost, KeyUnusable, Tampered, WrongKey
from downriver.vault.vault import MAX_VALUE

PLANTED = "planted-value-7f3a"


@pytest.fixture
def opened(store, home, clock):
    def make(environ=None):
        return Vault.open(store, home, environ or {}, clock)

    return make


def test_a_secret_comes_back_and_is_nowhere_on_disk_or_in_a_repr(opened, store, tmp_path):
    vault = opened()
    info = vault.set("MODE_API_TOKEN", SecretStr(PLANTED))
    assert opened().get("MODE_API_TOKEN").get_secret_value() == PLANTED
    assert opened().reveal("MODE_API_TOKEN") == PLANTED
    row = store.read_now(lambda conn: rows.get_secret(conn, "MODE_API_TOKEN"))
    said = [
        repr(vault),
        repr(vault.list()),
        repr(info),
        repr(row),
        str(vars(vault)),
        repr(vault.get("MODE_API_TOKEN")),
    ]
    assert not [text for text in said if PLANTED in text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        assert PLANTED.encode() not in path.read_bytes()


@pytest.mark.parametrize("value", ["x", "line\n", "\r\n \t", "ä€😀", "a\0b", "x" * MAX_VALUE])
def test_values_are_kept_to_the_last_character(opened, value):
    opened().set("A", value)
    assert opened().reveal("A") == value


@pytest.mark.parametrize("value", ["", "x" * (MAX_VALUE + 1), "€" * (MAX_VALUE // 3 + 1), "\ud800planted-value-7f3a"])
def test_values_that_cannot_be_are_refused_and_not_repeated(opened, value):
    with pytest.raises(VaultError, match="Nothing was stored") as caught:
        opened().set("A", SecretStr(value))
    assert len(str(caught.value)) < 200
    assert PLANTED not in str(caught.value)
    assert opened().list() == ()


@pytest.mark.parametrize("name", ["", "1A", "a b", "A-B", "x" * 129, "ä", "A\n", "A\0"])
def test_names_are_checked(opened, name):
    with pytest.raises(VaultError, match="letters, digits"):
        opened().set(name, "x")


@pytest.mark.parametrize("name", ["_", "A1", "x" * 128])
def test_names_at_the_edge_are_fine(opened, name):
    opened().set(name, "x")
    assert opened().reveal(name) == "x"


def test_setting_again_replaces_and_keeps_the_beginning(opened, clock):
    first = opened().set("A", "one")
    clock.pass_by(5)
    opened().set("A", "two")
    (info,) = opened().list()
    assert opened().reveal("A") == "two"
    assert info.created_at == first.created_at
    assert info.updated_at == clock.now
    assert info.fingerprint != first.fingerprint


def test_a_missing_secret_says_how_to_set_it(opened):
    vault = opened()
    with pytest.raises(SecretMissing, match="downriver secrets set MODE_API_TOKEN") as caught:
        vault.get("MODE_API_TOKEN")
    assert caught.value.name == "MODE_API_TOKEN"
    vault.set("B", "x")
    with pytest.raises(SecretMissing):
        vault.get("MODE_API_TOKEN")


def test_names_tell_upper_from_lower_case(opened):
    opened().set("TOKEN", "x")
    with pytest.raises(SecretMissing):
        opened().get("token")


def test_uses_are_written_together_when_told(opened, clock, store):
    vault = opened()
    for name in "ABC":
        vault.set(name, name)
    for name in "ABA":
        vault.get(name)
    assert {info.last_used_at for info in vault.list()} == {None}
    clock.pass_by(9)
    commits = []
    sa.event.listen(store._writer, "commit", commits.append)
    vault.note_use()
    vault.note_use()
    assert len(commits) == 1
    assert {info.name: info.last_used_at for info in vault.list()} == {"A": clock.now, "B": clock.now, "C": None}


def test_removing(opened):
    vault = opened()
    vault.set("A", "first")
    assert vault.remove("A")
    assert not vault.remove("A")
    assert vault.list() == ()
    with pytest.raises(SecretMissing):
        vault.get("A")
    vault.set("A", "again")
    assert opened().reveal("A") == "again"


# -- fingerprints -----------------------------------------------------------------------------------


def test_a_fingerprint_follows_the_value_and_cannot_be_computed_without_the_key(opened, store, tmp_path, clock):
    a = opened().set("A", "same").fingerprint
    assert re.fullmatch("[0-9a-f]{8}", a)
    assert opened().set("A", "same").fingerprint == a
    assert opened().set("A", "other").fingerprint != a
    assert opened().set("B", "same").fingerprint != a
    other = Store.open(f"sqlite:///{tmp_path / 'b.db'}")
    assert Vault.open(other, tmp_path / "b", {}, clock).set("A", "same").fingerprint != a
    other.close()


# -- tampering --------------------------------------------------------------------------------------


def change(store, name, **values):
    store.write_now(lambda conn: conn.execute(secret.update().where(secret.c.name == name).values(**values)))


def row_of(store, name):
    return store.read_now(lambda conn: rows.get_secret(conn, name))


@pytest.mark.parametrize("damage", ["tag", "nonce", "version", "cut", "empty", "swap", "fingerprint", "key_id"])
def test_a_tampered_row_is_said_and_the_others_can_be_read(opened, store, damage):
    vault = opened()
    vault.set("A", "first")
    vault.set("B", "second")
    a, b = row_of(store, "A"), row_of(store, "B")
    sealed = a.ciphertext
    values = {
        "tag": {"ciphertext": sealed[:-1] + bytes([sealed[-1] ^ 1])},
        "nonce": {"ciphertext": sealed[:1] + bytes([sealed[1] ^ 1]) + sealed[2:]},
        "version": {"ciphertext": b"\x02" + sealed[1:]},
        "cut": {"ciphertext": sealed[:20]},
        "empty": {"ciphertext": b""},
        "swap": {"ciphertext": b.ciphertext, "fingerprint": b.fingerprint},
        "fingerprint": {"fingerprint": "00000000"},
        "key_id": {"key_id": "0" * 16},
    }[damage]
    change(store, "A", **values)
    for reader in (vault, opened()):
        with pytest.raises(Tampered, match="secret `A`"):
            reader.get("A")
        assert reader.reveal("B") == "second"
    with pytest.raises(Tampered):
        opened().rotate_key()
    assert opened().reveal("B") == "second"
    opened().set("A", "mended")
    assert opened().reveal("A") == "mended"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_but_ours_are_ever_a_secret(opened, store, data):
    opened().set("A", "first")
    change(store, "A", ciphertext=data)
    with pytest.raises(Tampered):
        opened().get("A")


def test_rows_of_an_older_key_do_not_come_back(opened, store):
    opened().set("A", "old value")
    old = row_of(store, "A")
    opened().rotate_key()
    change(store, "A", ciphertext=old.ciphertext, fingerprint=old.fingerprint, key_id=old.key_id)
    with pytest.raises(Tampered):
        opened().get("A")


def test_a_removed_check_row_is_said(opened, store):
    opened().set("A", "x")
    store.write_now(lambda conn: conn.execute(vault_key.delete()))
    with pytest.raises(Tampered, match="backup"):
        opened()


# -- keys -------------------------------------------------------------------------------------------


def test_opening_writes_nothing_and_the_first_secret_makes_a_private_key(opened, home):
    vault = opened()
    assert vault.list() == ()
    assert not home.exists()
    vault.set("A", "x")
    assert home.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in home.iterdir()] == ["secret.key"]
    assert (home / "secret.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_read_is_refused(opened, home, mode):
    opened().set("A", "x")
    (home / "secret.key").chmod(mode)
    with pytest.raises(KeyUnusable, match=f"chmod 600 {home / 'secret.key'}"):
        opened()


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe\x00binary-binary-binary"])
def test_a_broken_key_file_is_said(opened, home, content):
    opened().set("A", "x")
    (home / "secret.key").write_bytes(content)
    with pytest.raises(KeyUnusable, match="secret.key"):
        opened()


def test_a_lost_key_is_said_and_the_way_out_works(opened, store, home, clock):
    opened().set("A", "x")
    opened().set("B", "y")
    (home / "secret.key").unlink()
    with pytest.raises(KeyLost, match="2 secrets"):
        opened()
    locked = Vault.open_locked(store, home, clock)
    assert [info.name for info in locked.list()] == ["A", "B"]
    with pytest.raises(KeyLost):
        locked.get("A")
    with pytest.raises(KeyLost):
        locked.set("C", "z")
    assert locked.remove("A")
    with pytest.raises(KeyLost, match="1 secrets"):
        opened()
    assert locked.remove("B")
    opened().set("A", "anew")
    assert opened().reveal("A") == "anew"


def test_a_lost_key_found_again_opens_everything(opened, home):
    opened().set("A", "x")
    text = (home / "secret.key").read_text()
    (home / "secret.key").unlink()
    assert opened({"DOWNRIVER_SECRET_KEY": text}).reveal("A") == "x"


def test_a_wrong_key_in_the_environment_is_found_at_open(opened, home):
    opened().set("A", "x")
    wrong = {"DOWNRIVER_SECRET_KEY": "another key, long enough"}
    with pytest.raises(WrongKey, match="unset the variable"):
        opened(wrong)
    (home / "secret.key").unlink()
    with pytest.raises(WrongKey, match="key that was used"):
        opened(wrong)


def test_a_wrong_key_file_is_found_at_open(opened, home):
    opened().set("A", "x")
    (home / "secret.key").write_text(new_key_text())
    with pytest.raises(WrongKey, match="right file"):
        opened()


@pytest.mark.parametrize("key", ["7f3a", "7" * 15, "   " + "7f3" * 5 + "\n"])
def test_a_short_key_is_refused_even_for_an_empty_vault(opened, key):
    with pytest.raises(KeyUnusable, match="openssl rand -base64 32") as caught:
        opened({"DOWNRIVER_SECRET_KEY": key})
    assert key.strip() not in str(caught.value)


def test_an_empty_variable_is_no_key(opened, home):
    opened({"DOWNRIVER_SECRET_KEY": " "}).set("A", "x")
    assert (home / "secret.key").exists()


@pytest.mark.parametrize(
    "key",
    ["a passphrase, long enough", "ключ ключ ключ ключ", new_key_text(), "f" * 64],
    ids=["words", "cyrillic", "made", "hex"],
)
def test_a_key_from_the_environment_leaves_no_file(opened, home, key):
    environ = {"DOWNRIVER_SECRET_KEY": key}
    opened(environ).set("A", "x")
    assert not home.exists()
    assert opened({"DOWNRIVER_SECRET_KEY": f"\n{key} "}).reveal("A") == "x"
    with pytest.raises(KeyLost):
        opened()


def test_base64_in_either_alphabet_with_or_without_padding_is_the_same_key(opened):
    plain = "+/" + "a" * 40 + "A="
    opened({"DOWNRIVER_SECRET_KEY": plain}).set("A", "x")
    for same in ("-_" + "a" * 40 + "A=", "-_" + "a" * 40 + "A", plain.rstrip("=")):
        assert opened({"DOWNRIVER_SECRET_KEY": same}).reveal("A") == "x"
    with pytest.raises(WrongKey):
        opened({"DOWNRIVER_SECRET_KEY": "-_" + "a" * 39 + "bA"})


def test_an_emptied_vault_takes_any_key(opened):
    opened({"DOWNRIVER_SECRET_KEY": "the first passphrase"}).set("A", "x")
    opened({"DOWNRIVER_SECRET_KEY": "the first passphrase"}).remove("A")
    emptied = opened({"DOWNRIVER_SECRET_KEY": "another passphrase!"})
    with pytest.raises(SecretMissing):
        emptied.get("A")
    emptied.set("A", "y")
    assert opened({"DOWNRIVER_SECRET_KEY": "another passphrase!"}).reveal("A") == "y"


def test_keys_are_in_no_repr_or_error(opened, home):
    key = "planted passphrase 7f3a"
    vault = opened({"DOWNRIVER_SECRET_KEY": key})
    vault.set("A", "x")
    assert key not in repr(vault) + repr(vars(vault))
    with pytest.raises(WrongKey) as caught:
        opened({"DOWNRIVER_SECRET_KEY": key + "!"})
    assert key not in str(caught.value)


def test_many_first_secrets_at_once_share_one_key(store, home, clock):
    """Each thread is a process to the vault: nothing is shared but the database and the directory."""
    vaults = [Vault.open(store, home, {}, clock) for _ in range(8)]
    errors = []

    def first(number):
        try:
            vaults[number].set(f"S{number}", str(number))
        except VaultError as error:
            errors.append(error)

    threads = [threading.Thread(target=first, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    vault = Vault.open(store, home, {}, clock)
    assert [vault.reveal(f"S{number}") for number in range(8)] == [str(number) for number in range(8)]


# -- rows -------------------------------------------------------------------------------------------


def test_rows_keep_every_field(store, clock):
    row = rows.SecretRow("A", b"\x00\xff", "00aa", "k", clock.now, clock.now, None)
    assert store.write_now(lambda conn: rows.put_secret(conn, row)) == row
    used = replace(row, last_used_at=clock.now)
    store.write_now(lambda conn: rows.touch_secrets(conn, ["A", "nobody"], clock.now))
    assert row_of(store, "A") == used
    store.write_now(lambda conn: rows.replace_all_secrets(conn, [replace(used, name="B")]))
    assert store.read_now(rows.all_secrets) == (replace(used, name="B"),)
    store.write_now(lambda conn: rows.replace_all_secrets(conn, []))
    assert store.read_now(rows.count_secrets) == 0
