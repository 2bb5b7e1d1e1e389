"""Rotation of the key: all or nothing, whatever dies when."""

import os
import subprocess
import sys
import textwrap

import pytest
from pydantic import SecretStr

from downriver.core.errors import StoreError, VaultError
from downriver.store import secrets as rows
from downriver.store.db import Store
from downriver.vault import Vault, keyfile
from downriver.vault.box import new_key_text
from downriver.vault.errors import KeyUnusable, WrongKey

SECRETS = {f"S{n}": f"value {n}" for n in range(5)}


@pytest.fixture
def opened(store, home, clock):
    def make(environ=None):
        return Vault.open(store, home, environ or {}, clock)

    return make


@pytest.fixture
def filled(opened):
    vault = opened()
    for name, value in SECRETS.items():
        vault.set(name, value)
    return vault


def everything(vault):
    return {info.name: vault.reveal(info.name) for info in vault.list()}


def test_rotation_keeps_every_value_and_time_and_nothing_of_the_old_key(opened, filled, home, store, clock):
    filled.get("S1")
    filled.note_use()
    before = store.read_now(rows.all_secrets)
    text = (home / "secret.key").read_text()
    clock.pass_by(100)
    assert filled.rotate_key() == len(SECRETS)
    after = store.read_now(rows.all_secrets)
    assert [(r.name, r.created_at, r.updated_at, r.last_used_at) for r in after] == [
        (r.name, r.created_at, r.updated_at, r.last_used_at) for r in before
    ]
    assert not {r.ciphertext for r in before} & {r.ciphertext for r in after}
    assert not {r.fingerprint for r in before} & {r.fingerprint for r in after}
    assert len({r.key_id for r in after} | {r.key_id for r in before}) == 2
    assert [path.name for path in home.iterdir()] == ["secret.key"]
    assert (home / "secret.key").stat().st_mode & 0o777 == 0o600
    assert (home / "secret.key").read_text() != text
    assert everything(filled) == everything(opened()) == SECRETS
    with pytest.raises(WrongKey):
        opened({"DOWNRIVER_SECRET_KEY": text})


def test_an_open_vault_follows_a_rotation_elsewhere(opened, filled):
    elsewhere = opened()
    filled.rotate_key()
    assert everything(elsewhere) == SECRETS
    filled.rotate_key()
    elsewhere.set("S0", "changed")
    assert filled.reveal("S0") == "changed"
    filled.rotate_key()
    elsewhere.rotate_key()
    assert filled.reveal("S1") == SECRETS["S1"]


def test_a_key_from_the_environment_is_rotated_by_handing_the_new_one_over(opened, home):
    old, new = "the old passphrase", "the new passphrase"
    vault = opened({"DOWNRIVER_SECRET_KEY": old})
    vault.set("A", "x")
    with pytest.raises(VaultError, match="DOWNRIVER_SECRET_KEY"):
        vault.rotate_key()
    with pytest.raises(KeyUnusable):
        vault.rotate_key(SecretStr("short"))
    assert opened({"DOWNRIVER_SECRET_KEY": old}).reveal("A") == "x"
    assert vault.rotate_key(SecretStr(new)) == 1
    assert vault.reveal("A") == "x"
    assert opened({"DOWNRIVER_SECRET_KEY": new}).reveal("A") == "x"
    with pytest.raises(WrongKey):
        opened({"DOWNRIVER_SECRET_KEY": old})
    assert list(home.iterdir()) == []


def test_a_chosen_key_can_take_the_place_of_the_file_s(opened, filled, home):
    filled.rotate_key(SecretStr("ein Schlüsselsatz"))
    assert (home / "secret.key").read_text() == "ein Schlüsselsatz\n"
    assert everything(opened()) == SECRETS


def test_nothing_to_rotate_is_said(opened):
    with pytest.raises(VaultError, match="first secret"):
        opened().rotate_key()


def test_two_rotations_at_once_do_not_mix(filled, home):
    with keyfile.rotation_lock(home) as free:
        assert free
        with pytest.raises(VaultError, match="Another process"):
            filled.rotate_key()
    assert filled.rotate_key() == len(SECRETS)


def test_cut_off_before_the_commit_the_old_key_stays(opened, filled, home):
    keyfile.write_new_key(home, new_key_text())
    assert everything(opened()) == SECRETS
    assert opened().rotate_key() == len(SECRETS)
    assert [path.name for path in home.iterdir()] == ["secret.key"]


def test_cut_off_after_the_commit_the_new_key_is_taken(opened, filled, home):
    old = (home / "secret.key").read_text()
    filled.rotate_key()
    (home / "secret.key").rename(home / "secret.key.new")
    keyfile._write(home / "secret.key", old.strip(), os.O_EXCL)
    assert everything(opened()) == SECRETS
    assert [path.name for path in home.iterdir()] == ["secret.key"]
    assert everything(opened()) == SECRETS


def test_opening_leaves_the_files_to_a_rotation_under_way(opened, filled, home):
    filled.rotate_key()
    (home / "secret.key").rename(home / "secret.key.new")
    with keyfile.rotation_lock(home):
        assert everything(opened()) == SECRETS
        assert [path.name for path in home.iterdir()] == ["secret.key.new"]
    assert opened().rotate_key() == len(SECRETS)
    assert [path.name for path in home.iterdir()] == ["secret.key"]


def test_a_database_that_refuses_leaves_everything_as_it_was(filled, opened, store, home, tmp_path):
    text = (home / "secret.key").read_text()
    other = Store.open(f"sqlite:///{tmp_path / 'a.db'}")
    vault = Vault.open(other, home, {})
    other.close()
    with pytest.raises(StoreError):
        vault.set("S0", "never")
    assert (home / "secret.key").read_text() == text
    assert everything(opened()) == SECRETS


# -- killed at every step ---------------------------------------------------------------------------

ROTATE = """
import os, sys
from pathlib import Path
from downriver.store.db import Store
from downriver.vault import Vault

url, home, die_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
store = Store.open(url)
vault = Vault.open(store, home, {})
count = 0

def watch(event, args):
    global count
    if event in ("open", "os.rename", "os.link", "os.remove", "sqlite3.connect") and armed:
        count += 1
        if count == die_at:
            os._exit(9)

armed = False
sys.addaudithook(watch)
armed = True
vault.rotate_key()
armed = False
print(count)
store.close()
"""


@pytest.mark.slow
def test_killed_at_any_step_no_secret_is_lost(tmp_path, clock):
    """The rotating process dies, without any clean-up, at each file operation in turn, until it gets through."""
    url, home = f"sqlite:///{tmp_path / 'k.db'}", tmp_path / "k"
    store = Store.open(url)
    vault = Vault.open(store, home, {}, clock)
    for name, value in SECRETS.items():
        vault.set(name, value)
    died = 0
    for step in range(1, 30):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(ROTATE), url, str(home), str(step)],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert done.returncode in (0, 9), done.stderr
        assert everything(Vault.open(store, home, {}, clock)) == SECRETS
        died += done.returncode == 9
        if done.returncode == 0:
            break
    store.close()
    assert done.returncode == 0
    assert died >= 4
    assert [path.name for path in home.iterdir()] == ["secret.key"]
