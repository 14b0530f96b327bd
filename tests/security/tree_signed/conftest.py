"""A fleet in a repository whose commits must be signed."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nixherd.deploy.commit_policy import Gate, Verified
from nixherd.errors import FleetError, Refused
from nixherd.nix.evaluator import Evaluator
from nixherd.run import Run
from tests import nix_cli

HOSTS = """
{
  a = {
    hostname = "a"; user = "me"; publicKey = "placeholder"; configurationFile = ./flake.nix; homeFile = ./flake.nix;
  };
}
"""
FLAKE = """
{
  outputs = { self }: {
    nixosConfigurations.a.config = {
      networking.hostName = "a";
      system.build.toplevel = derivation {
        name = "a"; system = "x86_64-linux"; builder = "/bin/sh";
        args = ["-c" "echo ${builtins.readFile ./word} >$out"];
      };
    };
  };
}
"""
WE, THEY = "us", "them"


@dataclass
class Tree:
    """A fleet's checkout, who may sign it, and keys of us and of others."""

    path: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def signers(self) -> Path:
        return self.home / ".config/nixherd/allowed_signers"

    def git(self, *words: str, at: str | None = None, input: str | None = None, **more: str) -> str:
        date = {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at} if at else {}
        done = subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "gpg.format=ssh", *words],
            cwd=self.path, env={**self.environment, **date, **more}, input=input, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, word: str = "", by: str | None = WE, *, at: str | None = None, amend: bool = False) -> str:
        """A commit of all that differs, with this word in the system; signed, or by nobody."""
        if word:
            (self.path / "word").write_text(word)
        self.git("add", "-A")
        return self._made(
            "commit", *(["--amend"] if amend else []), "-q", "--allow-empty", "-m", word or "x", by=by, at=at
        )

    def merge(self, *others: str, by: str | None = WE) -> str:
        self.git("merge", "-q", "--no-commit", "--no-ff", "-s", "ours" if len(others) == 1 else "octopus", *others)
        return self._made("commit", "-q", "--allow-empty", "-m", f"merge of {len(others)}", by=by)

    def _made(self, *words: str, by: str | None, at: str | None = None) -> str:
        key = ["-c", f"user.signingkey={self.home / by}"] if by else []
        self.git(*key, *words, *(["-S"] if by else ["--no-gpg-sign"]), at=at)
        return self.git("rev-parse", "HEAD")

    def may_sign(self, *who: str, options: str = 'namespaces="git"', file: Path | None = None) -> Path:
        file = file or self.signers
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{each}@x {options} {(self.home / f'{each}.pub').read_text()}" for each in who))
        return file

    def gate(self, **data: Any) -> Gate:
        gate = Gate.of(self.path, {"require_signed": True, **data}, [], notes=True)
        assert gate
        return gate

    def verify(self, **data: Any) -> Verified:
        return self.gate(**data).verify()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A fleet of one signed commit, which has not been deployed yet."""
    tree = Tree(tmp_path / "fleet", tmp_path, {**nix_cli.environment(), "HOME": str(tmp_path)})
    tree.path.mkdir()
    for name, value in tree.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FLEET", str(tree.path))
    for who in (WE, THEY):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / who], check=True)
    tree.may_sign(WE)
    (tree.path / "hosts.nix").write_text(HOSTS)
    (tree.path / "flake.nix").write_text(FLAKE)
    tree.git("init", "-q", "-b", "main")
    tree.commit("first")
    return tree


def refused(tree: Tree, kind: type[FleetError] = Refused, **data: Any) -> str:
    with pytest.raises(kind) as caught:
        tree.verify(**data)
    [line] = str(caught.value).splitlines()
    return line


def toplevel(tree: Tree, gate: Gate, then: Any = lambda: None) -> str:
    """What the flake comes to, with something that happens after the gate."""
    verified = gate.verify()
    evaluator = evaluator_of(gate, verified)
    evaluator.source = verified
    then()
    return Path(evaluator.evaluate(("a",), "a").toplevel_drv).read_text()


def evaluator_of(gate: Gate, verified: Verified) -> Evaluator:
    fleet = verified.fleet(gate.fleet)
    return Evaluator(fleet, Run(fleet.id), gate.verify)
