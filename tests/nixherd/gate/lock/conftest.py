"""An origin with a fleet that follows three inputs, and two clones of it; all local, with real git and real Nix."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from tests.nix_cli import environment

FLAKE = """\
{
  inputs = {
    base.url = "git+file://ROOT/base";
    data = { url = "git+file://ROOT/data"; flake = false; };
    tool = { url = "git+file://ROOT/tool"; inputs.base.follows = "base"; };
  };
  outputs = _: {};
}
"""
TOOL = """\
{
  inputs = { base.url = "git+file://ROOT/base"; deep.url = "git+file://ROOT/data"; deep.flake = false; };
  outputs = _: {};
}
"""
# It stops what has a file's content in the lock: each input that is bad is there by its revision, with a reason.
GATE = """\
git rev-parse HEAD >>ROOT/judged
while read -r rev why; do ! grep -q $rev flake.lock || { echo "error: $why" >&2; exit 1; }; done <ROOT/bad
"""
WHO = {f"GIT_{role}_{what}": "person" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass
class Ended:
    """How the command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def brief(self) -> tuple[int, list[str], list[str], list[str]]:
        """Its status, and the flake's own inputs that moved, were left behind, are unknown."""
        found = self.json
        moved = [each["input"] for each in found["moved"] if "/" not in each["input"]]
        left = [input for each in found["left_behind"] for input in each["inputs"]]
        return self.status, moved, left, sorted(found["unknown"])


@dataclass
class Forge:
    """`fleet` is the operator's clone, `person` another one's; `origin.git` is bare."""

    root: Path
    capture: pytest.CaptureFixture[str] | None = None

    def git(self, where: str, *words: str) -> str:
        done = subprocess.run(
            ["git", "-C", self.root / where, *words], env={**environment(), **WHO}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, where: str, **files: str) -> str:
        """In a repository of that name, made if it is not there: the files, and what git says of the commit."""
        directory = self.root / where
        if not directory.exists():
            directory.mkdir()
            self.git(where, "init", "-q", "-b", "main")
        for name, text in files.items():
            (directory / name.replace("_", ".")).write_text(text.replace("ROOT", str(self.root)))
        self.git(where, "add", "--all")
        self.git(where, "commit", "-qm", f"{where}: {', '.join(files)}")
        return self.git(where, "rev-parse", "HEAD")

    def upstream(self, name: str, *, bad: str = "") -> str:
        """A new revision of an input; `bad` is why the gate does not take it."""
        revision = self.commit(name, version=os.urandom(4).hex())
        if bad:
            with (self.root / "bad").open("a") as file:
                file.write(f"{revision} {bad}\n")
        return revision

    def theirs(self, **files: str) -> str:
        """Another person pushes to main."""
        self.git("person", "pull", "-q", "--rebase", "origin", "main")
        revision = self.commit("person", **files)
        self.git("person", "push", "-q", "origin", "HEAD:main")
        return revision

    def locked(self, commit: str = "main") -> dict[str, str]:
        """The revisions of the flake's own inputs, as the origin has them."""
        nodes = json.loads(self.git("origin.git", "show", f"{commit}:flake.lock"))["nodes"]
        return {name: nodes[node]["locked"]["rev"] for name, node in nodes["root"]["inputs"].items()}

    @property
    def tip(self) -> str:
        return self.git("origin.git", "rev-parse", "main")

    @property
    def judged(self) -> list[str]:
        """The commits that the gate was asked for, and of which the answer was kept."""
        file = self.root / "judged"
        return file.read_text().split() if file.exists() else []

    @property
    def gate(self) -> str:
        return GATE.replace("ROOT", str(self.root))

    def update(self, *words: str, gate: str | None = None) -> Ended:
        assert self.capture
        self.capture.readouterr()
        status = run(["lock", "update", "--gate", gate or self.gate, *words])
        out, err = self.capture.readouterr()
        assert "Traceback" not in out + err
        # whatever came of it, nothing of ours is left, and the operator's files are as they were
        assert self.git("fleet", "status", "--porcelain") == self.dirt
        assert len(self.git("fleet", "worktree", "list").splitlines()) == 1
        return Ended(status, out, err)

    dirt: str = ""


def surround(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's environment, with the fleet below `root`."""
    for name, value in {**environment(), **WHO, "HOME": str(root)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
    monkeypatch.setenv("FLEET", str(root / "fleet"))


@pytest.fixture
def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Forge:
    surround(tmp_path, monkeypatch)
    return made(Forge(tmp_path, capfd))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    """One that is only copied."""
    return made(Forge(tmp_path_factory.mktemp("forge")))


@pytest.fixture
def copied(
    template: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Forge:
    """The fleet and its origin anew, for what ends before its inputs are asked for: these are the template's."""
    surround(tmp_path, monkeypatch)
    forge = Forge(tmp_path, capfd)
    for name in ("fleet", "origin.git"):
        shutil.copytree(template.root / name, tmp_path / name)
    forge.git("fleet", "remote", "set-url", "origin", str(tmp_path / "origin.git"))
    return forge


def made(forge: Forge) -> Forge:
    root = forge.root
    (root / "bad").touch()
    for name, flake in (("data", ""), ("base", "{ outputs = _: {}; }"), ("tool", TOOL)):
        forge.commit(name, **({"flake_nix": flake} if flake else {"version": "1"}))
    for name in ("tool", "person"):
        if name == "person":
            forge.commit(name, flake_nix=FLAKE, readme="words")
        done = subprocess.run(["nix", "flake", "lock", root / name], env=environment(), capture_output=True)
        assert done.returncode == 0, done.stderr
        forge.git(name, "add", "--all")
        forge.git(name, "commit", "-q", "--amend", "--no-edit")
    for words in (["--bare", "person", "origin.git"], ["origin.git", "fleet"]):
        subprocess.run(["git", "clone", "-q", *words[:-2], root / words[-2], root / words[-1]], check=True)
    forge.git("person", "config", "user.name", "person")  # who pushes while the gate runs has no environment of ours
    forge.git("person", "config", "user.email", "person")
    forge.git("person", "remote", "add", "origin", str(root / "origin.git"))
    return forge
