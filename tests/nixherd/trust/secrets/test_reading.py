"""What is a secret: what sops has encrypted, and what a rule and a configuration mean; nothing else in a repository."""

from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.load import load_fleet
from nixherd.trust.enrol import Wanted
from nixherd.trust.recipients import with_rekeys
from nixherd.trust.secrets.store import Secrets
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.places import at_the_top
from tests.nixherd.trust.secrets.repositories import SECRETS, git, nobodys, sops

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]

ADMIN = key("admin").recipient
MODULE = ("a.nix", "b.yaml", "c.json", "d.env", "e", "f.sh")
USUAL = [
    *("LICENSE", "README.md", "Makefile", "flake.lock", "docs/index.md", ".github/workflows/ci.yaml"),
    *(".gitignore", ".editorconfig", "hosts/web/disk.nix", "hosts/web/compose.yaml", "keys/admin.pub"),
    *(
        f"modules/m{number}/{name}"
        for number in range(106)
        for name in ("a.nix", "b.yaml", "c.json", "d.env", "e", "f.sh")
    ),
]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nobodys(monkeypatch, tmp_path)
    return at_the_top(tmp_path / "fleet")


def write(fleet: Path, name: str, text: str) -> None:
    (fleet / name).parent.mkdir(parents=True, exist_ok=True)
    (fleet / name).write_text(text)


def findings(fleet: Path) -> tuple[str, ...]:
    return Secrets.load(fleet).plan(load_fleet(fleet)).findings


@pytest.mark.parametrize("rule", ["", "path_regex: .*\n    ", "path_regex: \\.(yaml|json|env)$\n    "])
@pytest.mark.parametrize("directory", [None, "."])
def test_a_repository_full_of_other_files_has_no_findings(fleet: Path, rule: str, directory: str | None) -> None:
    config = (fleet / ".sops.yaml").read_text()
    write(fleet, ".sops.yaml", f"{config}  - {rule}age: {ADMIN}\n")
    for name in USUAL:
        write(fleet, name, "key: value\n")
    write(fleet, "modules/m1/c.json", '{"a": 1, /* a comment */ "b": [,]}\n')
    write(fleet, "modules/m2/b.yaml", "a: [\n")
    write(fleet, "modules/m3/e", "\0\1binary")
    write(fleet, "modules/sops.py", "sops:\n  lastmodified: of sops itself\n  mac: ENC[x]\n")
    (fleet / "result").symlink_to("/nix/store")
    assert len(USUAL) > 640
    secrets = Secrets.load(fleet, directory)
    assert set(secrets.files) == {f"secrets/{name}" for name in SECRETS}
    left = [each for each in secrets.plan(load_fleet(fleet)).findings if "matches no file" not in each]
    assert left == []
    assert with_rekeys(Wanted(load_fleet(fleet), secrets)).rekeys == ()


def test_what_is_encrypted_is_a_secret_wherever_it_is(fleet: Path) -> None:
    for name in (".hidden.yaml", "docs/notes.md", "hosts/dev/x.nix", "a/.b/c.bin"):
        write(fleet, name, "key: value\n")
        sops(fleet, "--config", "/dev/null", "encrypt", "--age", ADMIN, "--in-place", name)
    assert {".hidden.yaml", "docs/notes.md", "hosts/dev/x.nix", "a/.b/c.bin"} < set(Secrets.load(fleet).files)
    assert "docs/notes.md: no creation rule matches it; add one to .sops.yaml, or move it away" in findings(fleet)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("secrets/common-2.yaml", "a: 1\n", "secrets/common-2.yaml: is not encrypted"),  # it is beside others
        ("secrets/common-2.yaml", "", "secrets/common-2.yaml: is empty; `nixherd secrets edit"),
        ("secrets/common-2.json", '{"a": 1, // x\n}', "secrets/common-2.json: cannot be read: it is not JSON"),
        ("secrets/common.md", "a\n", None),
        ("secrets/common/LICENSE", "a\n", None),
        ("hosts/db/named.yaml", "a: 1\n", "hosts/db/named.yaml: is not encrypted"),  # by Nix
        ("hosts/db/other.yaml", "a: 1\n", None),
    ],
)
def test_plain_text_that_a_rule_names(fleet: Path, name: str, text: str, expected: str | None) -> None:
    config = (fleet / ".sops.yaml").read_text()
    write(fleet, ".sops.yaml", f"{config}  - path_regex: ^hosts/db/.*\\.yaml$\n    age: {ADMIN}\n")
    write(fleet, "hosts/db/a.nix", "{ sops.defaultSopsFile = ./named.yaml; }\n")
    write(fleet, name, text)
    found = [each for each in findings(fleet) if "matches no file" not in each]
    assert [each[: len(expected or "")] for each in found] == ([expected] if expected else [])
    assert with_rekeys(Wanted(load_fleet(fleet), Secrets.load(fleet))).rekeys == ()


def test_a_file_in_which_nothing_is_encrypted_is_a_finding(fleet: Path) -> None:
    write(fleet, "secrets/common-2.yaml", "password: plain\n")
    sops(fleet, "encrypt", "--encrypted-regex", "^nothing$", "--in-place", "secrets/common-2.yaml")
    assert "password: plain" in (fleet / "secrets" / "common-2.yaml").read_text()
    [finding] = findings(fleet)
    assert finding.startswith("secrets/common-2.yaml: nothing in it is encrypted")
    write(fleet, "secrets/common-3.yaml", "password: ''\n")  # without a value nothing could be
    sops(fleet, "encrypt", "--in-place", "secrets/common-3.yaml")
    assert findings(fleet) == (finding,)


def test_what_git_ignores_is_not_looked_at_and_what_it_does_not_track_is(fleet: Path) -> None:
    for name in ("secrets/common-new.yaml", "secrets/common-local.yaml"):
        write(fleet, name, "a: 1\n")
    write(fleet, ".gitignore", "*-local.yaml\n")
    assert "secrets/common-new.yaml" in Secrets.load(fleet).files
    assert "secrets/common-local.yaml" not in Secrets.load(fleet).files


def test_a_merge_that_was_left_unfinished_in_a_secret_blocks_a_change(fleet: Path) -> None:
    text = (fleet / "secrets" / "common.yaml").read_text()
    write(fleet, "secrets/common.yaml", f"<<<<<<< ours\n{text}=======\n{text}>>>>>>> theirs\n")
    with pytest.raises(FleetError, match=r"common\.yaml: cannot be read: line 1: a merge was left unfinished"):
        with_rekeys(Wanted(load_fleet(fleet), Secrets.load(fleet)))


def test_a_file_that_is_gone_is_none(fleet: Path) -> None:
    git(fleet, "rm", "-q", "--cached", "secrets/dev.yaml")
    (fleet / "secrets" / "common.env").unlink()
    assert "secrets/common.env" not in Secrets.load(fleet).files
    assert "secrets/dev.yaml" in Secrets.load(fleet).files


def test_what_a_sparse_checkout_leaves_out_is_not_known_to_be_right(fleet: Path) -> None:
    write(fleet, "secrets/notes.md", "what is here\n")
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "notes")
    git(fleet, "sparse-checkout", "set", "--no-cone", "/*", "!secrets/common.*", "!secrets/notes.md")
    assert not (fleet / "secrets" / "common.yaml").exists()
    assert [each.partition(": git has it, and this sparse checkout has not")[0] for each in findings(fleet)] == [
        f"secrets/common.{ending}: cannot be read" for ending in ("env", "yaml")
    ]
    with pytest.raises(FleetError, match=r"common\.env: cannot be read: git has it"):
        with_rekeys(Wanted(load_fleet(fleet), Secrets.load(fleet)))


def test_a_pointer_of_git_lfs_is_not_plain_text(fleet: Path) -> None:
    write(fleet, "secrets/common.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    pull = "secrets/common.yaml: cannot be read: what is here is Git LFS' pointer to it; `git lfs pull`"
    assert findings(fleet) == (pull,)
    with pytest.raises(FleetError, match="Git LFS' pointer"):
        with_rekeys(Wanted(load_fleet(fleet), Secrets.load(fleet)))
