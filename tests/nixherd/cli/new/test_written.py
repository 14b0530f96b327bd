"""What `nixherd new` writes, asks and refuses."""

import re
from typing import Any

import click
import pytest

from nixherd.cli import output
from nixherd.fleet.load import load_fleet
from nixherd.trust.secrets.files import read_file
from tests.nixherd.cli.new.conftest import NEW, TOLD, Fleet
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import git, sops

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("cli-new")]


def test_all_of_it_is_there_and_known_to_git(fleet: Fleet) -> None:
    done = fleet.new(
        "web", "--secret", "api_token", "--secret", "wifi/password", "--range", "100-199", "--yes", "--json"
    )
    assert done.status == 0, done.err
    found = done.json
    assert found["files"] == sorted(
        [*NEW, "hosts.nix", "secrets/.sops.yaml", "secrets/web.yaml", "vms/definitions.nix"]
    )
    about = {
        name: found[name] for name in ("name", "kind", "vmid", "vmid_free", "size", "evaluated", "system", "commit")
    }
    assert about == {
        **{"name": "web", "kind": "vm", "vmid": 100, "vmid_free": None, "size": "small"},
        **{"evaluated": False, "system": None, "commit": None},
    }
    assert any("not evaluated" in line for line in found["findings"])
    assert any("another guest has VMID 100 is unknown" in line for line in found["findings"])
    loaded = load_fleet(fleet.root)
    host, vm = loaded.hosts["web"], loaded.vms["web"]
    assert (host.user, host.ssh_alias, host.public_key) == ("admin", "web", None)
    assert host.authorized_keys == (key("admin").public.strip(),)
    assert (vm.vmid, vm.host_id, vm.memory, vm.may_change) == (100, "web", 2048, True)
    status = git(fleet.root, "status", "--porcelain").splitlines()
    assert sorted(status) == sorted(
        [*(f" A {path}" for path in (*NEW, "secrets/web.yaml"))]
        + [f" M {path}" for path in ("hosts.nix", "secrets/.sops.yaml", "vms/definitions.nix")]
    )
    encrypted = read_file("web.yaml", (fleet.root / "secrets/web.yaml").read_bytes())
    assert encrypted is not None
    assert encrypted.recipients == (key("admin").age,)
    plain = sops(fleet.root / "secrets", "decrypt", "web.yaml").stdout
    token, password = re.fullmatch(r"api_token: (\S+)\nwifi:\n +password: (\S+)\n", plain).groups()  # type: ignore[union-attr]
    assert len({token, password}) == 2
    assert min(len(token), len(password)) > 40
    assert not any(word in done.out + done.err for word in (token, password))
    # a second one beside it, whose VMID is the next
    again = fleet.new("web2", "--range", "100-199", "--yes", "--json")
    assert (again.status, again.json["vmid"]) == (0, 101)
    assert "hosts.nix: has changes that nobody committed; they stay, beside ours" in again.err


def test_a_person_is_shown_what_changes_and_asked(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fleet.state()
    refused = fleet.new("web", "--vmid", "150", "--secret", "a", "--table")
    assert (refused.status, refused.err.splitlines()[-1]) == (
        2,
        "web was not written: without a terminal to ask on, say --yes",
    )
    assert "vmid = 150;" in refused.out
    assert "secrets/web.yaml: new, encrypted for admin: a" in refused.out
    assert "ENC[" not in refused.out
    planned = fleet.new("web", "--vmid", "150", "--dry-run", "--json")
    assert (planned.status, planned.json["planned"]) == (0, True)
    assert "+++ b/hosts/web/disko.nix" in planned.json["diff"]
    asked: list[tuple[str, Any]] = []
    answers = {"Its size": "docker", "What it is for": "Stacks", "From which": "150-160"}

    def prompt(question: str, default: Any = None, **options: Any) -> Any:
        asked.append((question.split(" (")[0], default))
        return next((answer for words, answer in answers.items() if question.startswith(words)), default)

    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    monkeypatch.setattr(click, "prompt", prompt)
    for answer, status in ((False, 2), (True, 0)):
        assert fleet.state() == before
        monkeypatch.setattr(click, "confirm", lambda *words, answer=answer, **options: answer)
        assert fleet.new("web", *TOLD[2:]).status == 2  # KEY is not a file: nothing is asked
        done = fleet.new("web", "--key-file", str(fleet.root.parent / "me.pub"), *TOLD[4:], "--table", told=False)
        assert done.status == status
    assert [question for question, _ in asked[:5]] == [
        *(
            "Its size",
            "What it is for",
            "Its admin user",
            "Its short name for ssh",
            "From which VMIDs, such as 100-199",
        ),
    ]
    assert dict(asked)["Its short name for ssh"] == "web"
    assert "# web: Stacks, VMID 150." in (fleet.root / "hosts.nix").read_text()


def test_in_a_pipe_what_is_missing_is_one_line_with_the_flag(fleet: Fleet) -> None:
    before = fleet.state()
    own = str(fleet.root.parent / "me.pub")
    for words, option in (
        (("--key-file", own, "--state-version", "25.11"), "--range: missing"),
        (("--state-version", "25.11", "--vmid", "150"), "--key-file: who may log in?"),
        (("--key-file", own, "--vmid", "150"), "--state-version: missing"),
        (("--key-file", own, "--vmid", "150", "--size", "gpu"), "--pci: missing"),
        (("--key-file", own, "--vmid", "250", "--size", "lxc"), "--archive: missing"),
        (("--key-file", own, "--no-vm"), "--device: missing"),
    ):
        fleet.new("web", "--no-vm", "--home-only")  # writes the key
        done = fleet.new("web", "--no-eval", "--yes", *words, told=False)
        assert done.status == 2, (words, done.err)
        [line] = [line for line in done.err.splitlines() if not line.startswith("web:")]
        assert line.startswith(option), (words, line)
    assert fleet.state() == before


IMPOSSIBLE = (
    (("dev",), "dev: is the id of dev"),
    (("web", "--ssh-alias", "doc1"), "--ssh-alias doc1: is the id of doc1"),
    (("web", "--vmid", "110"), "--vmid 110: is managed.dev.vmid"),
    (("Web",), "Web: DNS does not tell capitals apart"),
    (("nixos",), "nixos: is the name of the group"),
    (("web", "--vmid", "50"), "Error: Invalid value for '--vmid': 50"),
    (("web", "--vmid", "150", "--range", "100-199"), "--vmid and --range"),
    (("web", "--vmid", "150", "--disk", "64"), "--disk: "),
    (("web", "--vmid", "150", "--cores", "0"), "Error: Invalid value for '--cores': 0"),
    (("web", "--vmid", "150", "--memory", "512"), "--memory 512: the installer lives in memory"),
    (("web", "--vmid", "150", "--user", "a b"), "--user: "),
    (("web", "--vmid", "150", "--pool", ""), "--pool: is empty"),
    (("web", "--vmid", "150", "--device", "/dev/sda"), "--device: a VM's disk is its template's"),
    (("web", "--vmid", "150", "--archive", "x"), "--archive: is for a container"),
    (("web", "--vmid", "150", "--purpose", "a\nb"), "--purpose: is to be one line"),
    (("web", "--vmid", "150", "--secret", "../x"), "--secret ../x: is not a name"),
    (("web", "--vmid", "150", "--secret", "x", "--recipient", "doc1"), "--recipient doc1: is a host"),
    (("web", "--vmid", "150", "--secret", "x", "--recipient", "you"), "--recipient you: secrets/.sops.yaml knows"),
    (("web", "--vmid", "150", "--keys-of", "nobody", "--key-file", "/nowhere"), "--key-file /nowhere: cannot be read"),
    (("web", "--vmid", "150", "--keys-of", "doc1"), "--keys-of and --key-file"),
    (("web", "--no-vm", "--vmid", "150"), "--size: is a guest's, and with --no-vm there is none"),
    (("common",), "hosts/common: is there already"),
    (("web", "--vmid", "150", "--recipient", "admin"), "--recipient: says who reads a secret, and none is declared"),
    (("web", "--vmid", "150", "--pool", 'a"b'), "--pool: 'a\"b' is not a pool's name"),
)  # fmt: skip


def test_what_cannot_be_is_one_line_and_nothing_is_changed(fleet: Fleet) -> None:
    (fleet.root / "hosts" / "common").mkdir()
    (fleet.root / "hosts" / "common" / "home.nix").write_text("{ }\n")
    before = fleet.state()
    for words, line in IMPOSSIBLE:
        span = () if "--vmid" in words or "--no-vm" in words else ("--range", "100-199")
        done = fleet.new(*words, *span, "--yes")
        assert done.status == 2, (words, done.err)
        said = [each for each in done.err.splitlines() if not each.startswith(f"{words[0]}: e")]
        assert len(said) == 1, (words, said)
        assert said[0].startswith(line), (words, said)
    assert fleet.state() == before


def test_who_had_its_name_is_not_given_its_secrets(fleet: Fleet) -> None:
    config = fleet.root / "secrets" / ".sops.yaml"
    named = config.read_text().replace("&igp", "&web").replace("*igp", "*web")
    config.write_text(named)
    done = fleet.new("web", "--vmid", "150", "--secret", "x", "--yes")
    assert done.status == 2
    assert "secrets/.sops.yaml: web is a recipient already" in done.err
    other = (
        named.replace("&web", "&igp").replace("*web", "*igp")
        + f"  - path_regex: ^web.y\n    age: {key('admin').recipient},{key('doc1').recipient}\n"
    )
    config.write_text(other)
    done = fleet.new("web", "--vmid", "150", "--secret", "x", "--yes")
    assert "rule 4 (^web.y) is there for web already, for others than admin" in done.err
    assert config.read_text() == other


def test_what_cannot_be_edited_is_said_with_the_lines(fleet: Fleet) -> None:
    hosts = fleet.root / "hosts.nix"
    hosts.rename(fleet.root / "all.nix")
    hosts.write_text("import ./all.nix\n")
    before = fleet.state()
    done = fleet.new("web", "--vmid", "150", "--yes")
    assert done.status == 4
    assert 'add to hosts.nix:\n  web = {\n    hostname = "web";\n' in done.err
    assert done.err.endswith("nothing was changed, add the lines above by hand\n")
    assert fleet.state() == before
