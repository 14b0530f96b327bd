"""`nixherd secrets` for people whose key is in gpg, behind a plugin, or an SSH key as it is: all that sops can."""

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nixherd.trust.secrets.files import read_file
from nixherd.trust.secrets.keys import Recipient, age, pgp
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.kinds import gpg_home, install_plugin, rsa_key, token
from tests.nixherd.trust.secrets.repositories import SECRETS, contents, git, identity_of, nobodys, repository

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("kinds")]

DOC1 = key("doc1").recipient
CHECKOUT = Path(__file__).parents[3]
KINDS = ("pgp", "pgp at home", "plugin", "ssh-ed25519", "ssh-rsa")


@dataclass(frozen=True)
class Person:
    """Somebody, by one kind of key alone: `word` is what its list is called, `env` what they have set."""

    key: Recipient
    word: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def gnupg() -> Iterator[tuple[Path, dict[str, str]]]:
    with gpg_home("alice", "bob") as found:
        yield found


@pytest.fixture
def person(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    nobodys(monkeypatch, tmp_path)
    for name in ("SOPS_AGE_KEY_FILE", "GNUPGHOME"):
        monkeypatch.delenv(name, raising=False)
    found = _person(request, tmp_path)
    for name, value in found.env.items():
        monkeypatch.setenv(name, value)
    return found


def _person(request: pytest.FixtureRequest, place: Path) -> Person:
    kind = getattr(request, "param", "pgp")
    if kind.startswith("pgp"):
        home, keys = request.getfixturevalue("gnupg")
        env = {"GNUPGHOME": str(home)} if kind == "pgp" else {"HOME": str(home.parent)}
        return Person(pgp(keys["alice"]), "pgp", env)
    file = place / "identity"
    file.touch(0o600)
    if kind == "plugin":
        file.write_text(f"# the token\n{token('alice').identity}\n")
        path = f"{install_plugin(place / 'bin')}:{os.environ['PATH']}"
        env = {"SOPS_AGE_KEY_FILE": str(file), "PATH": path, "AGE_HERDTEST_LOG": str(place / "log")}
        return Person(age(token("alice").recipient), "age", env)
    private, public = (key("admin").private_openssh, key("admin").public) if kind == "ssh-ed25519" else rsa_key()
    file.write_text(private)
    file.with_name("identity.pub").write_text(f"{public} alice@laptop\n")
    return Person(age(f"{public} alice@laptop"), "age", {"SOPS_AGE_SSH_PRIVATE_KEY_FILE": str(file)})


def rules(person: Person) -> str:
    own = f"{person.word}: ['{person.key.value}']"
    hosts = f"'{key('doc1').recipient}', '{key('igp').recipient}'"
    group = f"pgp: [*alice]\n      age: [{hosts}]" if person.word == "pgp" else f"age: [*alice, {hosts}]"
    return (
        f"keys:\n- &alice {person.key.value}\ncreation_rules:\n- path_regex: ^(common|settings|sub/)\n"
        f"  key_groups:\n    - {group}\n- path_regex: ^(dev\\.yaml$|ssh_key_)\n  {own}\n"
    )


@pytest.fixture
def fleet(person: Person, tmp_path: Path) -> Path:
    """The fleet of the tests, the person in place of its admin."""
    place = repository(tmp_path / "fleet")
    (place / "secrets/.sops.yaml").write_text(rules(person))
    before = {**environment(), **os.environ, "SOPS_AGE_KEY_FILE": str(identity_of(tmp_path))}
    argv = ["sops", "updatekeys", "--yes", *SECRETS]
    done = subprocess.run(argv, cwd=place / "secrets", env=before, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (place / "hosts.nix").read_text().replace("placeholder", key("dev").public)
    (place / "hosts.nix").write_text(text)
    git(place, "commit", "-qam", "alice's")
    (tmp_path / "admin.age").unlink()
    return place


def plain(fleet: Path, name: str) -> str:
    """A file as the person decrypts it with sops itself."""
    done = subprocess.run(["sops", "decrypt", name], cwd=fleet / "secrets", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def who(fleet: Path, name: str) -> set[Recipient]:
    found = read_file(name, (fleet / "secrets" / name).read_bytes())
    assert found is not None
    return set(found.recipients)


@pytest.mark.slow
@pytest.mark.parametrize("person", KINDS, indirect=True)
def test_a_person_of_any_kind_does_all_that_sops_can(
    person: Person, fleet: Path, secrets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = secrets("status", "--json")
    assert status.status == 0, status.err
    files = {row["file"]: row for row in status.json["files"]}
    assert files["secrets/common.yaml"]["state"] == "ok"
    assert "alice" in files["secrets/common.yaml"]["recipients"]

    joins = secrets("add-host", "dev", "--rule", "1", "--rule", "2", "--json")
    assert joins.status == 0, joins.err
    assert who(fleet, "dev.yaml") == {person.key, key("dev").age}

    leaves = secrets("remove-host", "igp", "--rotate", "--json")
    assert leaves.status == 0, leaves.err
    assert who(fleet, "common.env") == {person.key, key("doc1").age, key("dev").age}
    assert plain(fleet, "common.env").startswith("# for all\nTOKEN=abc")

    editor = fleet.parent / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/xyzzy/plugh/ "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    assert secrets("edit", "dev.yaml").status == 0
    assert "plugh" in plain(fleet, "dev.yaml")
    assert secrets("status", "--json").status == 0


@pytest.mark.parametrize("person", ["plugin"], indirect=True)
def test_one_process_at_a_time_asks_a_token(person: Person, fleet: Path, secrets: Any) -> None:
    assert secrets("remove-host", "igp", "--rotate", "--json").status == 0
    lines = Path(person.env["AGE_HERDTEST_LOG"]).read_text().split()
    assert len(lines) >= 2 * 8  # four files, each for new recipients and for a new data key
    assert lines == ["begin", "end"] * (len(lines) // 2)


@pytest.mark.parametrize("person", ["plugin"], indirect=True)
def test_a_token_asks_for_its_pin_at_the_terminal(person: Person, fleet: Path) -> None:
    """sops reads it from /dev/tty, which only a process of the terminal's foreground can."""
    config = fleet / "secrets/.sops.yaml"
    text = config.read_text()
    config.write_text(text.replace(f"age: ['{person.key.value}']", f"age: ['{person.key.value}', {DOC1}]"))
    git(fleet, "commit", "-qam", "doc1 as well")
    script = "import sys; from nixherd.cli.main import run; sys.exit(run(sys.argv[1:]))"
    argv = [sys.executable, "-c", script, "--fleet", str(fleet), "secrets", "apply", "--json"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(CHECKOUT)
        os.execve(argv[0], argv, {**os.environ, "AGE_HERDTEST_PIN": "4711"})
    words, answered = b"", 0
    with contextlib.suppress(OSError):  # the terminal is gone with its last user
        while part := os.read(terminal, 1000):
            words += part
            if words.count(b"PIN of the token") > answered:
                answered += 1
                os.write(terminal, b"4711\n")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    assert status == 0, words.decode()
    assert answered == 2  # files
    assert who(fleet, "dev.yaml") == {person.key, key("doc1").age}


@pytest.mark.slow
@pytest.mark.parametrize("person", KINDS, indirect=True)
def test_nobody_locks_themselves_out(person: Person, fleet: Path, secrets: Any) -> None:
    config = fleet / "secrets/.sops.yaml"
    own = f"  {person.word}: ['{person.key.value}']\n"
    config.write_text(config.read_text().replace(own, f"  age: {key('doc1').recipient}\n"))
    git(fleet, "commit", "-qam", "without alice")
    before = contents(fleet)
    refused = secrets("apply", "--json")
    assert refused.status == 4
    lines = [line for line in refused.err.splitlines() if "encrypt" not in line]
    assert len(lines) == 1, refused.err
    assert "you could no longer decrypt what you can decrypt now" in lines[0]
    assert "--give-up" in lines[0]
    assert contents(fleet) == before
    done = secrets("apply", "--give-up", "--json")
    assert done.status == 0, done.err
    assert who(fleet, "dev.yaml") == {key("doc1").age}


def test_who_was_removed_is_removed_whatever_the_key(
    person: Person, fleet: Path, secrets: Any, gnupg: tuple[Path, dict[str, str]]
) -> None:
    config, bob = fleet / "secrets/.sops.yaml", gnupg[1]["bob"]
    text = config.read_text()
    config.write_text(text.replace("pgp: [*alice]", f"pgp: [*alice, {bob}]"))
    git(fleet, "commit", "-qam", "with bob")
    assert [row["state"] for row in secrets("status", "--json").json["files"] if row["rule"] == 1] == [
        f"+pgp {bob[-16:]}"
    ] * 4
    assert secrets("apply", "--json").status == 0
    assert pgp(bob) in who(fleet, "common.yaml")
    config.write_text(text)
    git(fleet, "commit", "-qam", "without bob")
    done = secrets("apply", "--json")
    assert done.status == 0
    assert pgp(bob) not in who(fleet, "common.yaml")
    assert "may have kept what the files held" in done.err


def test_a_key_that_is_written_otherwise_is_nobody_new(person: Person, fleet: Path, secrets: Any) -> None:
    config = fleet / "secrets/.sops.yaml"
    value = person.key.value
    config.write_text(config.read_text().replace(value, value.lower()))
    git(fleet, "commit", "-qam", "small letters")
    plan = secrets("plan", "--json").json["rekeys"]
    assert [(each["added"], each["removed"]) for each in plan] == [([], [])] * len(SECRETS)
    assert "alice is written otherwise" in secrets("plan", "--table").out
    done = secrets("apply", "--json")
    assert done.status == 0, done.err
    assert who(fleet, "dev.yaml") == {pgp(value.lower())}
    assert secrets("status", "--json").status == 0


@pytest.mark.parametrize("person", ["ssh-ed25519"], indirect=True)
def test_an_ssh_key_that_is_given_opens_what_is_for_it_itself(
    person: Person, fleet: Path, secrets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = person.env["SOPS_AGE_SSH_PRIVATE_KEY_FILE"]
    monkeypatch.delenv("SOPS_AGE_SSH_PRIVATE_KEY_FILE")
    missing = secrets("remove-host", "igp", "--json")
    assert missing.status == 4
    assert "no age identity there" in missing.err
    done = secrets("remove-host", "igp", "--identity", file, "--json")
    assert done.status == 0, done.err


@pytest.mark.parametrize("person", ["ssh-ed25519"], indirect=True)
def test_a_host_by_its_ssh_key_itself_is_that_host(person: Person, fleet: Path, secrets: Any) -> None:
    config = fleet / "secrets/.sops.yaml"
    text = config.read_text()
    config.write_text(text.replace(f"'{DOC1}'", f"'{key('doc1').public.rpartition(' ')[0]} root@elsewhere'"))
    git(fleet, "commit", "-qam", "doc1 as it is")
    assert secrets("apply", "--json").status == 0
    status = secrets("status", "--json")
    assert status.status == 0, status.err
    assert {row["host"]: len(row["rules"]) for row in status.json["hosts"]} == {"doc1": 1, "igp": 1, "dev": 0}
    [row] = [row for row in status.json["files"] if row["file"] == "secrets/common.yaml"]
    assert row["recipients"] == ["alice", "doc1", "igp"]
    [note] = status.json["notes"]
    assert note.startswith("secrets/.sops.yaml: rule 1 (^(common|settings|sub/)) names doc1 by its SSH key itself; ")
    assert "SOPS_AGE_SSH_PRIVATE_KEY_FILE" in note


def test_without_a_key_it_says_which_is_missing(
    person: Person, fleet: Path, secrets: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with gpg_home("nobody") as (home, _):
        monkeypatch.setenv("GNUPGHOME", str(home))
        before = contents(fleet)
        found = secrets("remove-host", "igp", "--json")
    assert found.status == 4
    assert "no age identity there; make one with age-keygen" in found.err
    assert contents(fleet) == before
