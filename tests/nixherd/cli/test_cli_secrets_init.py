"""`nixherd secrets init`: a new fleet, one whose shipped secrets nobody here can decrypt, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.trust.secrets.files import read_file
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import administered, contents, git, identity_of, sops

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


# As little as can be evaluated of a flake with sops-nix: what dev declares.
FLAKE = """{
  outputs = _: {
    nixosConfigurations = builtins.mapAttrs (id: host: {
      config.sops = {
        age.sshKeyPaths = [ /etc/ssh/ssh_host_ed25519_key ];
        secrets = if id != "dev" then { } else builtins.mapAttrs (name: file: {
          inherit name;
          key = name;
          path = "/run/secrets/${name}";
          format = "yaml";
          sopsFile = ./secrets + "/${file}";
        }) { api_token = "dev.yaml"; "wifi/password" = "common.yaml"; };
      };
    }) (import ./hosts.nix);
  };
}
"""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = administered(monkeypatch, tmp_path, "other", enrolled=True)
    (place / "flake.nix").write_text(FLAKE)
    git(place, "commit", "-qam", "what dev declares")
    return place


def recipients(fleet: Path) -> dict[str, set[str]]:
    """Who each secret file is encrypted for, by name."""
    names = {key(name).recipient: name for name in ("admin", "other", "doc1", "igp", "dev")}
    files = (path for path in sorted((fleet / "secrets").iterdir()) if path.name != ".sops.yaml")
    encrypted = {path.name: read_file(path.name, path.read_bytes()) for path in files}
    return {name: {names[key.value] for key in each.recipients} for name, each in encrypted.items() if each}


def empty(fleet: Path) -> None:
    git(fleet, "rm", "-rqf", "secrets")
    git(fleet, "commit", "-qm", "no secrets")


def test_a_new_fleet_begins(secrets: Any, fleet: Path) -> None:
    empty(fleet)
    dry = secrets("init", "--name", "me", "--dry-run", "--json")
    assert dry.status == 0, dry.err
    assert not (fleet / "secrets").exists()
    done = secrets("init", "--name", "me", "--json")
    assert done.status == 0, done.err
    assert done.json["steps"] == dry.json["steps"]
    assert sorted(done.json["files"]) == [
        "secrets/.sops.yaml",
        *sorted(f"secrets/{name}" for name in recipients(fleet)),
    ]
    assert set(recipients(fleet)) == {"common.yaml", "dev.yaml"}
    assert all(who == {"other", "dev"} for who in recipients(fleet).values())
    assert git(fleet, "status", "--porcelain") == ""
    status = secrets("status", "--json")
    assert status.status == 0, status.err
    text = sops(fleet / "secrets", "decrypt", "dev.yaml", identity="dev").stdout
    assert len(text.split("api_token: ")[1].strip()) > 20
    again = secrets("init", "--name", "me", "--json")
    assert (again.status, again.json["changed"]) == (0, False)


def test_where_nothing_is_declared_yet_the_people_are_written(
    secrets: Any, fleet: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And the first host with a secret gets the first rule, which the last one takes with it."""
    empty(fleet)
    (fleet / "flake.nix").write_text(FLAKE.replace('!= "dev"', '!= "nobody"'))
    git(fleet, "commit", "-qam", "nothing is declared")
    done = secrets("init", "--name", "me", "--json")
    assert (done.status, done.json["files"]) == (0, ["secrets/.sops.yaml"]), done.err
    begun = (fleet / "secrets" / ".sops.yaml").read_text()
    assert begun.endswith(f"keys:\n  # People.\n  - &me {key('other').recipient}\n\ncreation_rules: []\n")
    again = secrets("init", "--name", "me", "--json")
    assert (again.status, again.json["changed"]) == (0, False), again.err
    status = secrets("status", "--json")
    assert (status.status, status.json["files"]) == (0, []), status.err
    file = tmp_path / "me.pub"
    file.write_text(f"{key('admin').public}\n")
    words = ("web", "--vmid", "150", "--offline", "--no-eval", "--key-file", str(file), "--state-version", "25.11")
    run(["--fleet", str(fleet), "new", *words, "--secret", "token", "--commit", "--yes", "--json"])
    assert '"commit"' in capfd.readouterr().out
    assert recipients(fleet) == {"web.yaml": {"other"}}
    leaving = ("retire", "web", "--keep-vm", "--remove-secrets", "--yes")
    assert run(["--fleet", str(fleet), *leaving]) == 0, capfd.readouterr()
    assert recipients(fleet) == {}
    assert (fleet / "secrets" / ".sops.yaml").read_text() == begun


def test_somebody_elses_secrets_are_named_and_stay_until_they_may_go(secrets: Any, fleet: Path) -> None:
    before = contents(fleet)
    refused = secrets("init", "--name", "me")
    assert refused.status == 2
    assert "you cannot decrypt secrets/common.env" in refused.err
    assert "--replace-unreadable" in refused.err
    assert contents(fleet) == before
    done = secrets("init", "--name", "me", "--replace-unreadable", "--json")
    assert done.status == 0, done.err
    assert set(recipients(fleet)) == {"common.yaml", "dev.yaml"}
    assert all(who == {"other", "dev"} for who in recipients(fleet).values())
    assert "remove secrets/ssh_key_admin, which nobody declares and you cannot decrypt" in done.json["steps"]
    assert git(fleet, "status", "--porcelain") == ""


def test_what_can_be_decrypted_keeps_its_content(
    secrets: Any, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fleet / "secrets" / "mine.yaml"
    config = fleet / "secrets" / ".sops.yaml"
    rule = f"  - path_regex: ^mine\\.yaml$\n    age: {key('other').recipient}\n"
    config.write_text(config.read_text() + rule)
    path.write_text("kept: content\n")
    sops(fleet / "secrets", "encrypt", "--in-place", "mine.yaml")
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "mine")
    done = secrets(
        "init", "--name", "me", "--person", f"boss={key('admin').recipient}", "--replace-unreadable", "--json"
    )
    assert done.status == 0, done.err
    assert recipients(fleet)["mine.yaml"] == {"other", "admin"}
    assert "kept: content" in sops(fleet / "secrets", "decrypt", "mine.yaml").stdout


def test_a_fleet_that_has_its_secrets_is_left_alone(
    secrets: Any, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(identity_of(tmp_path, "admin")))
    before = contents(fleet)
    done = secrets("init", "--json")
    assert (done.status, done.json["steps"]) == (0, []), done.err
    assert contents(fleet) == before


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--person", "bob"), "write NAME=KEY"),
        (("--person", "bob=age1abc"), "not an age recipient"),
        (("--person", "bob=arn:aws:kms:eu-1:1:key/x"), "by hand"),
        (("--name", "a b"), "is not a name for a key"),
        (("--name", "bob", "--person", f"bob={key('igp').recipient}"), "is a name twice"),
        (("--name", "dev"), "two keys with one name"),
    ],
)
def test_wrong_words_change_nothing(secrets: Any, fleet: Path, words: tuple[str, ...], what: str) -> None:
    empty(fleet)
    before = contents(fleet)
    refused = secrets("init", *words)
    assert refused.status == 2
    assert what in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert contents(fleet) == before


def test_nobody_is_there(secrets: Any, fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty(fleet)
    monkeypatch.delenv("SOPS_AGE_KEY_FILE")
    refused = secrets("init")
    assert refused.status == 2
    assert "nobody is there to encrypt for" in refused.err
    assert "age-keygen" in refused.err


def test_what_is_there_in_plain_text_is_not_lost(secrets: Any, fleet: Path) -> None:
    empty(fleet)
    (fleet / "secrets").mkdir()
    (fleet / "secrets" / "dev.yaml").write_text("api_token: mine\n")
    before = contents(fleet)
    done = secrets("init", "--name", "me")
    assert (done.status, contents(fleet)) == (2, before)
    assert "secrets/dev.yaml: is there, no .sops.yaml is for it, and what is in it would be lost" in done.err


def test_where_files_are_above_the_fleet_it_says_which_directory_to_give(
    fleet: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And that, done as it says it, is what helps."""
    empty(fleet)
    for name in ("hosts.nix", "hosts", "vms", "flake.nix"):
        (fleet / "nix").mkdir(exist_ok=True)
        git(fleet, "mv", name, f"nix/{name}")
    flake = fleet / "nix" / "flake.nix"
    flake.write_text(flake.read_text().replace("./secrets", "../secrets"))
    git(fleet, "commit", "-qam", "below")
    before = contents(fleet)

    def secrets(*words: str) -> Ended:
        return Ended(run(["--fleet", str(fleet / "nix"), "secrets", *words]), *capfd.readouterr())

    for words in (("init",), ("--directory", ".", "init"), ("--directory", "secrets", "init")):
        refused = secrets(*words)
        assert refused.status == 2
        assert len(refused.err.strip().splitlines()) == 1
        assert "`nixherd secrets --directory ../secrets init`" in refused.err
        assert contents(fleet) == before
    done = secrets("--directory", "../secrets/", "init", "--name", "me", "--json")
    assert done.status == 0, done.err
    assert set(recipients(fleet)) == {"common.yaml", "dev.yaml"}
    again = secrets("--directory", "../secrets/", "init", "--name", "me", "--json")
    assert (again.status, again.json["changed"]) == (0, False), again.err


def test_a_person_who_is_not_written_is_named(secrets: Any, fleet: Path) -> None:
    empty(fleet)
    assert secrets("init", "--name", "me").status == 0
    done = secrets("init", "--name", "me", "--person", f"dan={key('admin').recipient}", "--json")
    assert (done.status, done.json["changed"]) == (0, False)
    [note] = done.json["notes"]
    assert "is there already, and was not given dan; write the key into its rules, then `nixherd secrets apply`" in note
    assert "--person x: the key is missing; write NAME=KEY" in secrets("init", "--person", "x").err
