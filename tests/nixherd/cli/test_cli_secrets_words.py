"""What is in the way of a change of secrets, and what to do, in one line each."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.kinds import fingerprints, gpg, gpg_home
from tests.nixherd.trust.secrets.repositories import administered, git, hosts

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return administered(monkeypatch, tmp_path)


def test_what_is_damaged_is_named_with_the_file(secrets: Any, fleet: Path) -> None:
    file = fleet / "secrets" / "common.yaml"
    file.write_text(file.read_text().replace("password: ENC[AES256_GCM,data:", "password: ENC[AES256_GCM,data:!"))
    git(fleet, "commit", "-qam", "damage")
    ended = secrets("remove-host", "igp", "--rotate")
    assert ended.status == 4
    words = (
        "secrets/common.yaml: it was changed without sops, and what is encrypted in it is damaged; restore it from git"
    )
    assert words in ended.err


@pytest.mark.parametrize("ends", ["revoked", "expired"])
def test_a_pgp_key_that_takes_nothing_is_named(
    secrets: Any,
    fleet: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: str,
) -> None:
    with gpg_home("alice") as (home, prints):
        monkeypatch.setenv("GNUPGHOME", str(home))
        alice = prints["alice"]
        if ends == "revoked":
            text = (home / "openpgp-revocs.d" / f"{alice}.rev").read_bytes().replace(b":-----BEGIN", b"-----BEGIN")
            gpg(home, "--import", input=text)
        else:
            gpg(home, "--faked-system-time", "20200101T000000", "--quick-generate-key", "old", "rsa2048", "encr", "1d")
            alice = fingerprints(home)["old"]
        config = fleet / "secrets" / ".sops.yaml"
        admin = key("admin").recipient
        config.write_text(
            config.read_text().replace(
                f"    age: {admin}\n  - path_regex: ^ssh", f"    age: {admin}\n    pgp: {alice}\n  - path_regex: ^ssh"
            )
        )
        git(fleet, "commit", "-qam", "alice")
        ended = secrets("apply")
        assert ended.status == 4
        what = (
            f"secrets/dev.yaml: sops updatekeys: cannot encrypt for the PGP key {alice}: it is expired, revoked or not"
        )
        assert what in ended.err
        assert f"`nixherd secrets remove-host {alice}`" in ended.err


def test_the_only_rule_of_a_file(secrets: Any, fleet: Path) -> None:
    config = fleet / "secrets" / ".sops.yaml"
    config.write_text(
        f"creation_rules:\n  - path_regex: igp\n    age: {key('igp').recipient},{key('admin').recipient}\n"
    )
    git(fleet, "commit", "-qam", "one rule")
    ended = secrets("remove-host", "igp", "--remove-secrets")
    assert ended.status == 4
    assert (
        "without rule 1 it has none, and no file of it could be encrypted any more; add another one first" in ended.err
    )


def test_a_file_of_a_submodule_is_encrypted_there(secrets: Any, fleet: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for words in (("init", "-q"), ("config", "user.name", "a"), ("config", "user.email", "a@invalid")):
        git(other, *words)
    (other / "x.yaml").write_text("a: 1\n")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "x")
    argv = ["git", "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "shared"]
    subprocess.run(argv, cwd=fleet, env=environment(), check=True, capture_output=True)
    flake = (fleet / "flake.nix").read_text().replace('./secrets + "/${file}"', './. + "/shared/x.yaml"')
    (fleet / "flake.nix").write_text(flake)
    (fleet / "hosts.nix").write_text(hosts(key("dev").public))
    git(fleet, "commit", "-qam", "shared")
    ended = secrets("add-host", "dev")
    assert ended.status == 2, ended.err
    assert "shared/x.yaml, is in shared, a repository of its own (a submodule)" in ended.err
    assert "encrypt it for dev's key there, and commit that; name rules of this repository with --rule" in ended.err
    assert "make one there" not in ended.err


def test_without_git_it_is_said_how_to_do_without_a_commit(secrets: Any, fleet: Path, tmp_path: Path) -> None:
    (fleet / ".git").rename(tmp_path / "git")
    ended = secrets("remove-host", "igp")
    assert ended.status == 4
    assert "is not in a git repository; `git init` one, or say --no-commit (data commit=False)" in ended.err
    assert secrets("remove-host", "igp", "--no-commit").status == 0
