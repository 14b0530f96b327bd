"""Which files are closed to a machine, and which command opens them; on files that the real sops has encrypted."""

import functools
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.fleet.load import load_fleet
from nixherd.nix.declared import Declared, DeclaredSecret, Identity
from nixherd.trust.secrets.causes import Causes, Key
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.keys import pgp
from nixherd.trust.secrets.proof import Proven, Verdict, places
from nixherd.trust.secrets.remedies import Situation, findings, making, opens
from nixherd.trust.secrets.store import Secrets
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import git, nobodys, repository, sops

DEV, ADMIN = key("dev").age, key("admin").age
GPG = pgp("0123456789ABCDEF0123456789ABCDEF01234567")


@pytest.mark.parametrize(
    ("encrypted", "has_gnupg", "expected"),
    [
        (Encrypted(((ADMIN, DEV),)), False, True),
        (Encrypted(((ADMIN,),)), False, False),
        (Encrypted(((ADMIN,), (DEV,)), threshold=2), False, False),
        (Encrypted(((ADMIN, DEV), (DEV,)), threshold=2), False, True),
        (Encrypted(((ADMIN,), (DEV,)), threshold=1), False, True),
        (Encrypted(((ADMIN, GPG),)), False, False),
        (Encrypted(((ADMIN, GPG),)), True, None),  # nobody looked whether it has that key
        (Encrypted(()), False, False),
    ],
)
def test_whom_a_file_opens_for(encrypted: Encrypted, has_gnupg: bool, expected: bool | None) -> None:
    assert opens(encrypted, frozenset((DEV,)), has_gnupg=has_gnupg) is expected


Advice = Callable[..., str]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nobodys(monkeypatch, tmp_path)
    return repository(tmp_path / "fleet", enrolled=True)


@pytest.fixture
def advice(fleet: Path) -> Advice:
    """What is said of dev's secrets from these files, none of which is on the machine."""

    def one(*files: str, user: str | None = None, **known: object) -> str:
        secrets = tuple(DeclaredSecret(name, f"/s/{name}", name, "yaml", name, user=user) for name in files)
        declared = Declared("dev", secrets, (), (Identity(user),), {user: "/s"} if user else {})
        exists = functools.partial(lambda path: os.path.lexists(fleet / path))
        situation = Situation("dev", load_fleet(fleet), Secrets.load(fleet), declared, exists, is_current=True)
        proven = [Proven(place, Verdict.MISSING, "it is not there") for place in places(declared)]
        [finding] = findings(replace(situation, **known), proven)  # type: ignore[arg-type]
        return f"{finding.why}; {finding.remedy}"

    return one


@pytest.mark.nix
def test_one_command_for_several_files(advice: Advice, fleet: Path) -> None:
    admins = "not encrypted for it: secrets/ssh_key_admin; `nixherd secrets add-host dev`, then `nixherd deploy dev`"
    assert advice("secrets/dev.yaml", "secrets/ssh_key_admin") == admins
    assert advice("secrets/none.yaml").startswith(
        "does not exist: secrets/none.yaml; `nixherd secrets add-host dev --cr"
    )
    assert advice("secrets/common_new.yaml").startswith(
        "does not exist: secrets/common_new.yaml; `nixherd secrets edit s"
    )
    (fleet / "secrets/dev.yaml").write_text("plain: text\n")
    assert advice("secrets/dev.yaml").startswith("not encrypted: secrets/dev.yaml; `nixherd secrets status` says what")
    assert (
        making(Secrets.load(fleet), "dev", "secrets/common_new.yaml")
        == "`nixherd secrets edit secrets/common_new.yaml`"
    )


@pytest.mark.nix
def test_a_raw_ssh_key_is_one_that_sops_nix_cannot_open(advice: Advice, fleet: Path) -> None:
    raw = " ".join(key("dev").public.split()[:2])
    (fleet / "plain.yaml").write_text("a: b\n")
    argv = ["sops", "encrypt", "--age", f"{key('admin').recipient},{raw}", "plain.yaml"]
    text = subprocess.run(argv, cwd=fleet, env=environment(), capture_output=True, text=True, check=True).stdout
    (fleet / "plain.yaml").unlink()
    (fleet / "secrets/ssh_key_raw.yaml").write_text(text)
    git(fleet, "add", "-A")
    why = "encrypted for its SSH key as it is, which sops-nix cannot open"
    assert advice("secrets/ssh_key_raw.yaml").startswith(
        f"{why}: secrets/ssh_key_raw.yaml; `nixherd secrets add-host dev`"
    )


@pytest.mark.nix
def test_where_a_file_takes_more_keys_than_the_hosts_encrypting_anew_does_not_help(advice: Advice, fleet: Path) -> None:
    groups = [{"age": [key("admin").recipient]}, {"age": [key("igp").recipient, key("dev").recipient]}]
    rule = {"path_regex": "^both", "shamir_threshold": 2, "key_groups": groups}
    (fleet / "both").mkdir()
    (fleet / "both/.sops.yaml").write_text(json.dumps({"creation_rules": [rule]}))
    (fleet / "both/both.yaml").write_text("a: b\n")
    sops(fleet / "both", "encrypt", "--in-place", "both.yaml")
    git(fleet, "add", "-A")
    why = "rule 1 (^both) takes keys of 2 groups together, and {0} is in fewer: "
    why += "its key alone opens none of that rule's files"
    step = "name its key in 2 key groups of that rule, or declare a file of another one, then `nixherd deploy dev`"
    assert advice("both/both.yaml") == f"{why.format('dev')}: both/both.yaml; {step}"
    notes = Secrets.load(fleet).plan(load_fleet(fleet)).notes
    assert notes == tuple(f"both/.sops.yaml: {why.format(host)}" for host in ("igp", "dev"))


@pytest.mark.nix
def test_a_home_is_judged_by_its_users_key(advice: Advice) -> None:
    user = "alice"
    other = {user: Causes((Key("/k", (key("other").age,), "ssh-ed25519 AAAA"),))}
    text = advice("secrets/dev.yaml", user=user, causes=other)
    assert text.startswith(
        f"not encrypted for what alice's home decrypts with, {key('other').recipient} (/k): secrets/"
    )
    admins = {user: Causes((Key("/k", (key("admin").age,)),))}
    assert advice("secrets/dev.yaml", user=user, causes=admins).endswith(
        "`systemctl --user restart sops-nix` as alice on dev"
    )
    unread = {user: Causes((Key("/k", why="Permission denied"),))}
    assert advice("secrets/dev.yaml", user=user, causes=unread).startswith("it is not there; `systemctl --user")
