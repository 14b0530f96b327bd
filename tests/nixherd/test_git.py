"""git as a gate: who signed what, by real keys."""

import os
import subprocess
from pathlib import Path

import pytest

from nixherd.errors import FleetError
from nixherd.git import Repository


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    tree = tmp_path / "work"
    git(tmp_path, "init", "-q", str(tree))
    for who in ("us", "them"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / who], check=True)
    (tmp_path / "signers").write_text(f"us@invalid {(tmp_path / 'us.pub').read_text()}")
    return tree


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", directory, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(work: Path, subject: str, key: str | None) -> str:
    who = ["-c", "user.name=us", "-c", "user.email=us@invalid", "-c", "gpg.format=ssh"]
    sign = ["-c", f"user.signingkey={work.parent / key}"] if key else []
    git(work, *who, *sign, "commit", "-q", "--allow-empty", "-m", subject, *(["-S"] if key else []))
    return git(work, "rev-parse", "HEAD")


def test_every_commit_since_is_verified(work: Path) -> None:
    signers = work.parent / "signers"
    unsigned = commit(work, "unsigned", None)
    first = commit(work, "first", "us")
    repository = Repository.around(work)
    assert repository is not None
    assert repository.not_signed(first, signers) == []
    assert repository.not_signed(unsigned, signers) == []
    second = commit(work, "by somebody else", "them")
    assert repository.not_signed(first, signers) == [f"{second[:7]} by somebody else"]
    assert repository.not_signed(None, signers) == [f"{second[:7]} by somebody else"]
    third = commit(work, "third", "us")
    assert repository.not_signed(second, signers) == []
    assert repository.not_signed(None, signers) == [], "the last one alone"
    assert repository.not_signed(third, signers) == []
    assert len(repository.not_signed(first, None)) == 2, "nobody may"


def test_what_runs_has_to_be_where_we_come_from(work: Path) -> None:
    commit(work, "first", "us")
    repository = Repository.around(work)
    assert repository is not None
    for revision in ("0" * 40, "4f2c0d9-dirty"):
        with pytest.raises(FleetError, match="is no commit that the last one follows"):
            repository.not_signed(revision, work.parent / "signers")
