"""What a host's leaving changes in files of whatever shape, what stays, and why; nothing is written for it."""

import re
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.trust.enrol import Wanted
from nixherd.trust.retire import Retirement, plan
from nixherd.trust.secrets.store import Secrets
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import git, repository

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]

HOST = '{{ hostname = "{0}"; user = "root"; publicKey = "placeholder"; configurationFile = ./{1}; }}'


def host(name: str, place: str = "hosts/{0}/configuration.nix") -> str:
    return HOST.format(name, place.format(name))


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PATH", "NIX_CONF_DIR", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, environment()[name])
    monkeypatch.setenv("HOME", str(tmp_path))


def planned(root: Path, files: dict[str, str], *, in_git: bool = True, **how: object) -> Retirement:
    """The plan for `web`, in a tree of these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    if in_git:
        git(root, "init", "-q")
        git(root, "add", "-A")
    return plan(Wanted(load_fleet(root), Secrets(root)), "web", Repository.around(root) if in_git else None, **how)  # type: ignore[arg-type]


def test_shapes_that_people_write(tmp_path: Path) -> None:
    """Inherited from a `let`, and two guests of one host, the comments of each; what else names it is told."""
    other = tmp_path / "group_data" / "all.py"
    other.parent.mkdir()
    other.write_text('neighbour = "web"\n')
    found = planned(
        tmp_path / "fleet",
        {
            "hosts.nix": f"let\n  # the web\n  web = {host('web')};\n  db = {host('db')};\nin {{ inherit web db; }}\n",
            "hosts/web/configuration.nix": "{ }",
            "hosts/web/data/x.txt": "x",
            "hosts/db/configuration.nix": '{ allHosts, ... }: { x = allHosts.web.user; y = "/web/x"; }',
            "vms/definitions.nix": """{
  proxmox = { host = "192.0.2.1"; node = "prom"; };
  imported = {
    # the old one
    web-old = { vmid = 104; hostname = "web"; };
    db = { vmid = 105; hostname = "db"; };
    # the new one
    web = { vmid = 106; hostname = "web"; };
  };
}
""",
            ".github/workflows/x.yml": "on: push\nrun: nix build .#nixosConfigurations.web.config\n",
            "docs/machines.md": "# Ours\n",
        },
        beside=[other],
    )
    files = {path: text and text.decode() for path, text in found.change.files.items()}
    assert files["hosts.nix"] == f"let\n  db = {host('db')};\nin {{ inherit db; }}\n"
    assert files["vms/definitions.nix"] == (
        '{\n  proxmox = { host = "192.0.2.1"; node = "prom"; };\n  imported = {\n'
        '    db = { vmid = 105; hostname = "db"; };\n  };\n}\n'
    )
    assert (files["hosts/web/configuration.nix"], files["hosts/web/data/x.txt"]) == (None, None)
    assert "| db | db |" in str(files["docs/machines.md"])
    assert sorted(vm.vmid for vm in found.guests) == [104, 106]
    assert [(each.path, each.line) for each in found.mentions] == [
        (".github/workflows/x.yml", 2),
        (str(other), 1),
        ("hosts/db/configuration.nix", 1),
    ]


@pytest.mark.parametrize(
    ("web", "others", "gone", "stays"),
    [
        ("hosts/web.nix", {}, ["hosts/web.nix"], []),
        ("machines/web/c.nix", {"hosts/web/old.nix": ""}, ["hosts/web/old.nix", "machines/web/c.nix"], []),
        ("common/c.nix", {}, [], ["common/c.nix stays: nothing says that it is this host's alone"]),
        ("hosts/db/configuration.nix", {}, [], ["hosts/db/configuration.nix stays: hosts.nix: db has files there"]),
        (
            "hosts/web/c.nix",
            {"lib/x.nix": "{ x = ../hosts/web/c.nix; }"},
            [],
            ["hosts/web stays: lib/x.nix:1: { x = ../hosts/web/c.nix; }"],
        ),
    ],
)
def test_which_files_are_its_alone(
    tmp_path: Path, web: str, others: dict[str, str], gone: list[str], stays: list[str]
) -> None:
    entries = f"{{\n  web = {host('web', web)};\n  db = {host('db')};\n}}\n"
    found = planned(tmp_path, {web: "{ }", "hosts/db/configuration.nix": "{ }", "hosts.nix": entries, **others})
    assert sorted(path for path, text in found.change.files.items() if text is None) == gone
    assert list(found.stays) == stays


def test_links_stay_and_so_does_all_where_no_git_could_bring_it_back(tmp_path: Path) -> None:
    entries = f"{{\n  web = {host('web')};\n  db = {host('db')};\n}}\n"
    files = {"hosts.nix": entries, "hosts/web/configuration.nix": "{ }", "hosts/db/configuration.nix": "{ }"}
    found = planned(tmp_path / "plain", files, in_git=False)
    assert found.stays == ("hosts/web stays: no git could bring it back",)
    (tmp_path / "linked/hosts/web").mkdir(parents=True)
    (tmp_path / "linked/hosts/web/home.nix").symlink_to("../db/configuration.nix")
    (tmp_path / "linked/hosts/web/untracked").touch()
    found = planned(tmp_path / "linked", files)
    assert found.stays == ("hosts/web/home.nix stays: it is not an ordinary file",)


@pytest.mark.parametrize("place", [".sops.yaml", "hosts/db/secrets.yaml", "other/.sops.yaml"])
def test_access_outside_of_the_directory_of_secrets_is_not_overlooked(tmp_path: Path, place: str) -> None:
    """Also without any such directory: a host that still decrypts something has not left."""
    text = f"keys:\n  - &someone {key('doc1').recipient}\ncreation_rules:\n  - path_regex: .*\n    age: *someone\n"
    if not place.endswith(".sops.yaml"):
        text = (repository(tmp_path / "other") / "secrets" / "common.yaml").read_text()
    files = {"hosts.nix": f"{{ web = {host('web')}; }}".replace("placeholder", key("doc1").public.strip()), place: text}
    with pytest.raises(FleetError, match=rf"^{re.escape(place)}: web is a recipient there, outside of .*--secrets"):
        planned(tmp_path / "fleet", {**files, "hosts/web/configuration.nix": "{ }"})


def test_an_entry_that_is_computed_is_refused_with_its_line(tmp_path: Path) -> None:
    entries = f"{{\n  db = {host('db')};\n}} // import ./more.nix\n"
    files = {"hosts.nix": entries, "more.nix": f"{{ web = {host('web')}; }}", "hosts/web/configuration.nix": "{ }"}
    with pytest.raises(FleetError, match=r"hosts.nix: web does not exist, so it cannot be removed"):
        planned(tmp_path, {**files, "hosts/db/configuration.nix": "{ }"})


def test_a_person_whose_key_is_called_like_the_host_stays(tmp_path: Path) -> None:
    """With and without a key that is the host's: nothing but hosts.nix says which that is."""
    root = repository(tmp_path / "fleet", enrolled=True)
    config = root / "secrets" / ".sops.yaml"
    text = config.read_text().replace("&dev", "&machine").replace("*dev", "*machine")
    config.write_text(text.replace("&admin", "&dev").replace("*admin", "*dev"))
    git(root, "commit", "-qam", "named after a laptop")
    fleet, repo = load_fleet(root), Repository.around(root)
    found = plan(Wanted(fleet, Secrets.load(root)), "dev", repo)
    assert {gone for rekey in found.change.rekeys for gone in rekey.removed} == {key("dev").age}
    word = f"secrets/.sops.yaml: {key('admin').recipient} stays: it is called dev, and nothing says that it is its key"
    assert found.stays.count(word) == 1
    config.write_text(config.read_text().replace(key("dev").recipient, key("other").recipient))
    assert plan(Wanted(fleet, Secrets.load(root)), "dev", repo).stays.count(word) == 1
