"""Which keys come and go with a host: those that are known to be its own, in the files that it declares."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.base.ssh_keys import parse_public_key
from nixherd.fleet.changeset import changing
from nixherd.fleet.load import load_fleet
from nixherd.trust.enrol import Wanted, publish
from nixherd.trust.joining import Admission
from nixherd.trust.recipients import trusted, untrusted, with_rekeys
from nixherd.trust.secrets.files import read_file
from nixherd.trust.secrets.sops import operator
from nixherd.trust.secrets.store import Secrets
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import (
    BEFORE,
    WITH_DEV,
    admission,
    contents,
    git,
    identity_of,
    nobodys,
    recipients,
    repository,
    sops,
)
from tests.shared import Shared

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]

CONFIG = "secrets/.sops.yaml"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nobodys(monkeypatch, tmp_path)
    return repository(tmp_path / "fleet")


def carry_out(fleet: Path, change: Callable[[Wanted], Wanted], *, identity: str = "admin") -> Wanted:
    shared = Shared(load_fleet(fleet), Path("/nonexistent"))
    try:
        with changing(fleet) as changes:
            result = change(Wanted(load_fleet(fleet), Secrets.load(fleet)))
            path = identity_of(fleet.parent, identity)
            publish(changes, result, "x", sops=lambda: operator(shared.run, path), say=lambda line: None)
            return result
    finally:
        shared.run.close()


def enrol(fleet: Path, how: Admission | None = None, *, host: str = "dev", public: str | None = None) -> Wanted:
    pinned = public or key(host).public

    def change(files: Wanted) -> Wanted:
        return trusted(files, files.fleet.hosts[host], pinned, how or admission())

    return carry_out(fleet, change)


def refused(fleet: Path, words: str, act: Callable[[], object]) -> None:
    before = contents(fleet), git(fleet, "rev-parse", "HEAD"), git(fleet, "status", "--porcelain")
    with pytest.raises(FleetError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert (contents(fleet), git(fleet, "rev-parse", "HEAD"), git(fleet, "status", "--porcelain")) == before


def rewrite(fleet: Path, name: str, *replacements: tuple[str, str]) -> None:
    text = (fleet / name).read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    (fleet / name).write_text(text)
    git(fleet, "commit", "-qam", "changed")


def opens(fleet: Path, name: str, identity: str) -> bool:
    return sops(fleet / "secrets", "decrypt", name, identity=identity, check=False).returncode == 0


# Whose key it is


def test_a_person_who_named_a_key_after_a_laptop_stays_in(fleet: Path) -> None:
    """The laptop is enrolled: nothing says that the key is the laptop's, and what to do instead helps."""
    rewrite(fleet, CONFIG, ("&admin", "&dev"))
    text = (fleet / CONFIG).read_text()
    rewrite(fleet, CONFIG, ("*admin", "*dev")) if "*admin" in text else None
    words = f"{CONFIG}: dev is what another key is called there: {key('admin').recipient}; nothing says that it is"
    refused(fleet, words, lambda: enrol(fleet))
    rewrite(fleet, CONFIG, ("&dev", "&ann"), ("*dev", "*ann"))
    enrol(fleet)
    assert recipients(fleet) == WITH_DEV
    assert all(opens(fleet, name, "admin") for name in WITH_DEV)


@pytest.mark.parametrize("written", ["- &dev KEY", "- KEY # dev", "# dev\n  - KEY"])
def test_a_name_alone_is_no_reason_to_replace_a_key(fleet: Path, written: str) -> None:
    rewrite(fleet, CONFIG, ("creation_rules:", f"  {written.replace('KEY', key('other').recipient)}\ncreation_rules:"))
    refused(fleet, "dev is what another key is called there", lambda: enrol(fleet))
    rewrite(fleet, CONFIG, ("          - *igp\n", f"          - *igp\n          - {key('other').recipient}\n"))
    carry_out(fleet, with_rekeys)
    enrol(fleet, admission(replaces=["dev"]))
    assert recipients(fleet) == WITH_DEV
    assert key("other").recipient not in (fleet / CONFIG).read_text()


def test_the_key_that_hosts_nix_had_before_is_replaced(fleet: Path) -> None:
    """Its name there is of no account, and the machine was installed anew after its entry got a placeholder."""
    enrol(fleet)
    rewrite(fleet, CONFIG, ("&dev", "&old-name"), ("*dev", "*old-name"))
    rewrite(fleet, "hosts.nix", (key("dev").public, "placeholder"))
    enrol(fleet, public=key("other").public)
    expected = {name: {"other" if each == "dev" else each for each in who} for name, who in WITH_DEV.items()}
    assert recipients(fleet) == expected
    assert f"&old-name {key('other').recipient}" in (fleet / CONFIG).read_text()


def test_a_key_that_is_another_hosts_now_is_not_taken_for_its_old_one(fleet: Path) -> None:
    enrol(fleet)
    rewrite(fleet, "hosts.nix", (key("dev").public, "placeholder"), (key("igp").public, key("dev").public))
    refused(fleet, "was its key once and is igp's now", lambda: enrol(fleet, public=key("other").public))


def test_the_raw_ssh_key_of_a_host_is_that_host(fleet: Path) -> None:
    raw = parse_public_key(key("dev").public).bare
    rewrite(fleet, CONFIG, ("          - *igp\n", f"          - *igp\n          - {raw} root@dev\n"))
    carry_out(fleet, with_rekeys)
    enrol(fleet)
    assert recipients(fleet) == WITH_DEV
    assert raw not in (fleet / CONFIG).read_text()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("doc1", "--replace doc1: that is the host key of doc1"),
        ("nobody", "nobody is called nobody in secrets/.sops.yaml; there are admin, doc1, igp"),
        (key("other").recipient, "nobody is called age1"),
    ],
)
def test_what_is_to_be_replaced_must_be_there(fleet: Path, given: str, words: str) -> None:
    refused(fleet, words, lambda: enrol(fleet, admission(replaces=[given])))


# Who is removed


def remove(name: str) -> Callable[[Wanted], Wanted]:
    return lambda change: untrusted(change, name)


def test_a_host_leaves_and_its_namesake_stays(fleet: Path) -> None:
    enrol(fleet)
    rewrite(fleet, CONFIG, ("&dev", "&machine-dev"), ("*dev", "*machine-dev"), ("&admin", "&dev"), ("*admin", "*dev"))
    result = carry_out(fleet, remove("dev"))
    assert recipients(fleet) == BEFORE
    words = f"{CONFIG}: {key('admin').recipient} stays: it is called dev, and nothing says that it is its key"
    assert result.notes == (words,)


def test_a_namesake_alone_is_not_removed_for_the_host(fleet: Path) -> None:
    rewrite(fleet, CONFIG, ("&igp", "&dev"), ("*igp", "*dev"))
    rewrite(fleet, "hosts.nix", (key("igp").public, key("other").public))
    git(fleet, "commit", "-q", "--amend", "-m", "x")
    words = f"dev: nothing says that {key('igp').recipient}, which is called so, is the host's key; name the key"
    refused(fleet, words, lambda: carry_out(fleet, remove("dev")))
    carry_out(fleet, remove(key("igp").recipient))
    assert recipients(fleet) == {name: who - {"igp"} for name, who in BEFORE.items()}


@pytest.mark.parametrize("name", ["gone", "stranger"])
def test_who_is_no_host_any_more_can_be_removed(fleet: Path, name: str) -> None:
    """One that hosts.nix had, whatever it is called; one that only has a name."""
    enrol(fleet)
    if name == "gone":
        rewrite(fleet, "hosts.nix", ("  dev = {", "  new = {"), ('hostname = "dev"', 'hostname = "new"'))
        rewrite(fleet, "hosts.nix", (key("dev").public, "placeholder"))
        rewrite(fleet, "vms/definitions.nix", ('nixosConfig = "dev"', 'nixosConfig = "new"'))
        carry_out(fleet, remove("dev"))
    else:
        rewrite(fleet, CONFIG, ("&dev", "&stranger"), ("*dev", "*stranger"))
        rewrite(fleet, "hosts.nix", (key("dev").public, "placeholder"))
        carry_out(fleet, remove("stranger"))
    assert recipients(fleet) == BEFORE


# Which files


def test_what_the_change_does_not_concern_stays_and_is_said(fleet: Path) -> None:
    """Another drift is not mended silently, and a file that cannot be read does not stand in the way."""
    rewrite(
        fleet,
        CONFIG,
        (f"- path_regex: ^ssh_key_\n    age: {key('admin').recipient}", "- path_regex: ^ssh_key_\n    age: X"),
    )
    rewrite(fleet, CONFIG, ("age: X", f"age: {key('admin').recipient},{key('other').recipient}"))
    (fleet / "secrets" / "ssh_key_torn").write_text("<<<<<<< HEAD\n")
    (fleet / "secrets" / "ssh_key_torn.yaml").write_text("<<<<<<< HEAD\nsops:\n  lastmodified: x\n")
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "torn")
    result = enrol(fleet)
    assert recipients(fleet) == WITH_DEV
    assert "not encrypted for whom the rules name, and left so: secrets/ssh_key_admin; see `nix" in result.notes[-1]
    carry_out(fleet, remove("dev"))
    assert recipients(fleet) == BEFORE
    refused(fleet, "ssh_key_torn.yaml: cannot be read", lambda: carry_out(fleet, with_rekeys))
    git(fleet, "rm", "-q", "secrets/ssh_key_torn.yaml")
    git(fleet, "commit", "-qm", "mended")
    carry_out(fleet, with_rekeys)
    assert recipients(fleet) == {**BEFORE, "ssh_key_admin": {"admin", "other"}}


def test_a_file_of_its_own_that_cannot_be_read_stands_in_the_way(fleet: Path) -> None:
    rewrite(fleet, "secrets/dev.yaml", ("sops:", "<<<<<<< HEAD\nsops:"))
    refused(fleet, r"secrets/dev\.yaml: cannot be read: line", lambda: enrol(fleet))


# What is missing


def made(fleet: Path, name: str) -> set[str]:
    names = {key(each).age: each for each in ("admin", "doc1", "igp", "dev")}
    encrypted = read_file(name, (fleet / name).read_bytes())
    assert encrypted is not None
    return {names[each] for each in encrypted.recipients}


@pytest.mark.parametrize("file", ["new.yaml", "sub/new.json", "new.env", "more.ini", "blob", "odd name+x.yaml"])
def test_a_declared_file_is_made_with_its_rule_in_the_same_commit(fleet: Path, file: str) -> None:
    rewrite(fleet, CONFIG, ("^(common|settings|sub/)", "^(common|settings|sub/thing)"))
    path = f"secrets/{file}"
    refused(
        fleet, re.escape(f"dev: {path}: no rule of {CONFIG} is for it; add `- "), lambda: enrol(fleet, admission(path))
    )
    result = enrol(fleet, admission(path, creates=True))
    assert [step.partition(" with a")[0] for step in result.steps if step.startswith("make")] == [
        f"make {path}: new, encrypted for admin and dev,"
    ]
    assert made(fleet, path) == {"admin", "dev"}
    assert opens(fleet, file, "dev")
    assert opens(fleet, file, "admin")
    assert not opens(fleet, file, "doc1")
    assert sorted(git(fleet, "show", "--format=", "--name-only").splitlines()) == sorted([CONFIG, path, "hosts.nix"])
    assert enrol(fleet, admission(path)).steps == ()


def test_a_rule_without_its_file_is_joined_and_the_file_is_made_when_it_is_asked_for(fleet: Path) -> None:
    rewrite(fleet, CONFIG, (r"^dev\.yaml$", "^dev"))
    result = enrol(fleet, admission("secrets/dev.yaml", "secrets/dev-more.yaml"))
    assert opens(fleet, "dev.yaml", "dev")
    words = (
        "dev: secrets/dev-more.yaml does not exist: `nixherd secrets edit secrets/dev-more.yaml` makes it, or --create"
    )
    assert [note for note in result.notes if note.startswith(words)]
    enrol(fleet, admission("secrets/dev.yaml", "secrets/dev-more.yaml", creates=True))
    assert made(fleet, "secrets/dev-more.yaml") == {"admin", "dev"}
    assert sops(fleet / "secrets", "decrypt", "dev-more.yaml", identity="dev").stdout.startswith("api_token: ")


def test_a_file_without_a_rule_gets_one_for_its_readers(fleet: Path) -> None:
    rewrite(fleet, CONFIG, (r"^dev\.yaml$", "^nothing$"))
    enrol(fleet, admission("secrets/dev.yaml", creates=True))
    assert recipients(fleet)["dev.yaml"] == {"admin", "dev"}


# One host after another


def test_each_host_of_a_new_fleet_gets_what_it_declares_and_no_more(fleet: Path) -> None:
    """The first one as well: nobody is a recipient before but the admin."""
    for name in ("doc1", "igp"):
        rewrite(fleet, CONFIG, (f"          - *{name}\n", ""), (f"  - &{name} {key(name).recipient}\n", ""))
        rewrite(fleet, "hosts.nix", (key(name).public, f"placeholder {name}"))
    carry_out(fleet, with_rekeys)
    assert set.union(*recipients(fleet).values()) == {"admin"}
    declares = {
        "doc1": ("secrets/common.yaml", "secrets/doc1.yaml"),
        "igp": ("secrets/common.yaml", "secrets/igp.json"),
        "dev": ("secrets/dev.yaml",),
    }
    for host in declares:
        enrol(fleet, admission(*declares[host], creates=True), host=host)
    shared = {"common.yaml", "common.env", "settings.ini", "sub/thing.json"}  # of one rule
    private = {"doc1": {"doc1.yaml"}, "igp": {"igp.json"}, "dev": {"dev.yaml"}}
    for host, files in private.items():
        expected = files | (shared if host != "dev" else set())
        assert {name for name in (*shared, *set.union(*private.values())) if opens(fleet, name, host)} == expected
    assert all(opens(fleet, name, "admin") for name in (*shared, *set.union(*private.values())))
