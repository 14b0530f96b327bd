"""What a commit has is read back: a git hook may have changed it, added to it, or kept something out of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import Altered, Exit, exit_of
from nixherd.fleet.changeset import Done, changing
from tests.nixherd.cli.conftest import planted_hook
from tests.nixherd.trust.secrets.repositories import git, nobodys

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]

HOSTS = b'{\n  # machines\n  web = { hostname = "web"; };\n}\n'
NEW: dict[str, bytes] = {
    "hosts.nix": b'{\n  # machines\n  web = { hostname = "web2"; };\n}\n',
    "hosts/web.nix": b"{ lib, ... }:\n{ networking.domain = ''\n  a\n''; }\n",
    "docs/machines.md": b"web2\n",
    "secrets/.sops.yaml": b"creation_rules:\n  - age: age1\n",
    "secrets/a.yaml": b"a: ENC[AES256_GCM,data:x]\n",
    "secrets/note.md": b'{"data": "ENC[AES256_GCM,data:x]"}\n',
}
GONE = "secrets/b.yaml"
Commit = Callable[..., Done]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet below the top of its repository."""
    nobodys(monkeypatch, tmp_path)
    top = tmp_path / "top"
    for name, content in {"hosts.nix": HOSTS, GONE: b"b\n", "other.json": b"{}\n", "secrets/c.yaml": b"c\n"}.items():
        (top / "fleet" / name).parent.mkdir(parents=True, exist_ok=True)
        (top / "fleet" / name).write_bytes(content)
    for words in (("init", "-qb", "main"), ("config", "user.name", "a"), ("config", "user.email", "a@invalid")):
        git(top, *words)
    git(top, "add", "-A")
    git(top, "commit", "-qm", "the fleet")
    return top / "fleet"


@pytest.fixture
def commit(fleet: Path) -> Commit:
    """Commits all of NEW without GONE, past a hook that runs in the fleet's directory."""

    def published(hook: str = "", at: str = "pre-commit") -> Done:
        if hook:
            planted_hook(fleet.parent, f"cd fleet\n{hook}", at)
        with changing(fleet) as changes:
            seen = {path: changes.tree.read(path) for path in (*NEW, GONE)}
            for path, content in NEW.items():
                changes.stage(path, content)
            return changes.publish(seen, "all of it", removed=[GONE], commit=True, say=lambda line: None)

    return published


def head(fleet: Path) -> str:
    return git(fleet, "rev-parse", "--short", "HEAD").strip()


def clean(fleet: Path) -> bool:
    left = list(fleet.parent.parent.glob("state/nixherd/.trees/*/*"))
    return git(fleet, "status", "--porcelain") == "" and [each.name for each in left] in ([], ["lock"])


def test_a_hook_that_changes_nothing(fleet: Path, commit: Commit) -> None:
    done = commit("true")
    assert (done.notes, done.commit) == ((), head(fleet))
    assert clean(fleet)


# each changes one file, whose meaning is another afterwards
CHANGES = {
    "rules": ("secrets/.sops.yaml", "sed -i s/age1/age2/ secrets/.sops.yaml; git add secrets/.sops.yaml"),
    "secret": ("secrets/a.yaml", "echo '# x' >> secrets/a.yaml; git add secrets/a.yaml"),
    "secret called a document": ("secrets/note.md", "echo >> secrets/note.md; git add secrets/note.md"),
    "value": ("hosts.nix", "sed -i s/web2/web3/ hosts.nix; git add hosts.nix"),
    "no Nix": ("hosts/web.nix", "echo '}' >> hosts/web.nix; git add hosts/web.nix"),
    "of a host": ("hosts/web.nix", "sed -i s/domain/hostName/ hosts/web.nix; git add hosts/web.nix"),
    "kept out": ("secrets/a.yaml", "git rm -q --cached secrets/a.yaml"),
    "brought back": (GONE, f"echo b > {GONE}; git add {GONE}"),
    "a link": ("secrets/a.yaml", "ln -sf ../hosts.nix secrets/a.yaml; git add secrets/a.yaml"),
    "rules that were not ours": (".sops.yaml", "echo '{}' > .sops.yaml; git add .sops.yaml"),
    "a secret that was not ours": ("secrets/c.yaml", "echo 'c: ENC[AES256_GCM,' > secrets/c.yaml; git add -A secrets"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "hook"), CHANGES.values(), ids=CHANGES)
def test_what_a_hook_changed_is_an_error_though_the_commit_is_there(
    fleet: Path, commit: Commit, path: str, hook: str
) -> None:
    before = head(fleet)
    with pytest.raises(Altered) as error:
        commit(hook)
    made, text = head(fleet), str(error.value)
    assert made != before
    assert f"{fleet}/{path}: a git hook changed it on its way into commit {made}, which is made and stays" in text
    assert f"`git -C {fleet} show {made} -- {path}`" in text
    assert f"`git -C {fleet} revert {made}`" in text
    assert "\n" not in text
    assert exit_of(error.value, changed=False) is Exit.FAILED
    assert [each.name for each in fleet.parent.parent.glob("state/nixherd/.trees/*/*")] == ["lock"]


def test_what_the_file_here_is_then_is_said(fleet: Path, commit: Commit) -> None:
    add = "id=$(echo x | git hash-object -w --stdin); git update-index --cacheinfo 100644,$id,fleet/secrets/a.yaml"
    for hook, said in (
        ("echo x >> secrets/a.yaml; git add secrets/a.yaml", "the file here is the same as in it"),
        (add, "the file here is as it was made"),
        (f"{add}; echo y > secrets/a.yaml", "the file here is neither that nor as it was made"),
    ):
        with pytest.raises(Altered, match=said):
            commit(hook)
        git(fleet, "reset", "-q", "--hard", "HEAD~")


@pytest.mark.parametrize(
    ("path", "hook"),
    [
        ("hosts.nix", "printf '{ web={hostname=\"web2\";}; }' > hosts.nix"),
        ("hosts.nix", "printf 'let n = \"web2\"; in { web.hostname = n; }' > hosts.nix"),
        ("hosts/web.nix", "printf '{lib,...}: { networking.domain = \"a\\\\n\"; } # same' > hosts/web.nix"),
        ("docs/machines.md", "echo more >> docs/machines.md"),
    ],
)
def test_what_means_the_same_and_what_means_nothing_here_is_a_note(
    fleet: Path, commit: Commit, path: str, hook: str
) -> None:
    done = commit(f"{hook}; git add {path}")
    assert [note for note in done.notes if note.startswith(f"{path}: a git hook changed")] == [*done.notes]
    assert len(done.notes) == 1
    assert clean(fleet)  # what git had in its index would have undone it with the next commit


def test_what_a_hook_adds_is_a_note(fleet: Path, commit: Commit) -> None:
    done = commit("echo '{ }' > other.json; git add other.json")
    assert done.notes == (f"commit {done.commit} has fleet/other.json as well, which a git hook added",)


@pytest.mark.parametrize(("path", "stays"), [("secrets/a.yaml", False), ("docs/machines.md", True)])
def test_what_a_hook_changes_beside_the_commit(fleet: Path, commit: Commit, path: str, stays: bool) -> None:
    said = "has it as it was made, and the file here is another by now"
    if stays:
        assert said in commit(f"echo x >> {path}").notes[0]
    else:
        with pytest.raises(Altered, match=said):
            commit(f"echo x >> {path}")
    assert git(fleet, "show", f"HEAD:./{path}").encode() == NEW[path]


def test_a_commit_that_is_amended_afterwards(fleet: Path, commit: Commit) -> None:
    amend = "test -e ../done && exit; touch ../done; sed -i s/age1/age2/ secrets/.sops.yaml"
    with pytest.raises(Altered, match=r"\.sops\.yaml: a git hook changed it"):
        commit(f"{amend}; unset GIT_INDEX_FILE; git commit -qam x --amend", at="post-commit")


def test_gits_own_filters_are_no_hook(fleet: Path, commit: Commit) -> None:
    (fleet / ".gitattributes").write_text("*.yaml text\nsecrets/a.yaml filter=twice\n")
    git(fleet, "config", "filter.twice.clean", "sed p")
    git(fleet, "add", ".gitattributes")
    git(fleet, "commit", "-qm", "attributes")
    assert commit().notes == ()
    assert git(fleet, "show", "HEAD:./secrets/a.yaml") == "a: ENC[AES256_GCM,data:x]\n" * 2


def test_a_commit_on_no_branch_is_said(fleet: Path, commit: Commit) -> None:
    git(fleet, "checkout", "-q", "--detach")
    done = commit()
    keep = f"`git -C {fleet} branch NAME {done.commit}` keeps it"
    assert done.notes == (f"commit {done.commit} is on no branch, for HEAD is detached; {keep}",)
