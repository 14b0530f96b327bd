"""A home's files that are in the way of its generation: machine.sh tells them, has them moved, and puts them back."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.deploy.home_files import why_refused
from nixherd.deploy.options import Goal
from nixherd.deploy.protocol import Deployment, Kind, Stage, Standing, parse

GENERATION = f"/nix/store/{'a' * 32}-home-manager-generation"
REFUSES = "echo \"Existing file '$HOME/{}' would be clobbered\" >&2"
MOVES = 'mv "$HOME/{0}" "$HOME/{0}.$HOME_MANAGER_BACKUP_EXT"; ln -s /dev/null "$HOME/{0}"'


@dataclass(frozen=True)
class Home:
    """A user's home with two generations in a store of its own, the old of which its profile leads to."""

    path: Path

    def generation(self, name: str, activate: str, *files: str) -> Path:
        made = self.path / "store" / name
        for file in files:
            (made / "home-files" / file).parent.mkdir(parents=True, exist_ok=True)
            (made / "home-files" / file).symlink_to("/dev/null")
        made.mkdir(parents=True, exist_ok=True)
        (made / "activate").write_text(f"#!/bin/sh\n{activate}\n")
        (made / "activate").chmod(0o755)
        return made

    def sh(self, script: str) -> str:
        env = {"HOME": str(self.path), "PATH": os.environ["PATH"], "HOME_MANAGER_BACKUP_COMMAND": "false"}
        done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done
        return done.stdout

    def deploys(self, new: Path, backup: str = "", word: str = "keep") -> Standing:
        """Has a generation deployed by its own process, which is told this word; how it stands then."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        own = self.path / f".local/state/nixherd/deploy-{boot}/one"
        own.mkdir(parents=True)
        (own / "program").write_text(Deployment("one", "me", Goal.SWITCH, GENERATION, None, 5, 5, Kind.HOME).begin[1])
        (own / "settings").write_text(
            f"who=me goal=switch new={new} target={new} old={self.path}/store/old deadline=5 confirm=5 generation= "
            f"before= newest=0 backup={backup}\n"
        )
        (own / "state").write_text("armed\n")
        (own / "running-before").write_text("")
        says = f"until grep -q proving {own}/state; do sleep 0.05; done; sh {own}/program home say one {word} why"
        self.sh(f"(timeout 5 sh -c '{says}') >/dev/null 2>&1 & timeout 20 sh {own}/program home watch one; wait")
        return parse(self.sh(f"sh {own}/program home look one none 0"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    old = made.generation("old", "true")
    tools, profile = tmp_path / ".nix-profile/bin", tmp_path / ".local/state/nix/profiles/home-manager"
    for directory in (tools, profile.parent):
        directory.mkdir(parents=True)
    profile.symlink_to(old)
    (tools / "nix-env").write_text('#!/bin/sh\n[ "$3" != --set ] || ln -sfn "$4" "$2"\n')
    (tools / "nix-env").chmod(0o755)
    return made


def test_every_file_in_the_way_is_named_and_nothing_is_activated(home: Home) -> None:
    names = [f".file {number}" for number in range(25)]  # more than the end of the log
    new = home.generation("new", "\n".join([*(REFUSES.format(name) for name in names), "exit 1"]))
    now = home.deploys(new)
    assert (now.stage, now.in_the_way) == (Stage.REFUSED, tuple(f"{home.path}/{name}" for name in names))
    why = why_refused(now, None)
    assert why.startswith(f"{home.path}/.file 0, ")
    remedy = "deploy with -b EXT (backup_extension), which moves each to FILE.EXT, or move them away there"
    assert why.endswith(f"/.file 24 are in the way; {remedy}")


@pytest.mark.parametrize(
    "line",
    ["Existing file '/h/.bashrc' would be clobbered", "Existing file '/h/.bashrc' is in the way",
     "\x1b[1;31mExisting file '/h/.bashrc' is in the way of '/nix/store/x-home-manager-files/.bashrc'\x1b[0m",
     "Existing file '/h/.bashrc' would be clobbered by backing up '/h/.bash'"],
)  # fmt: skip
def test_the_words_of_its_newer_and_older_versions(home: Home, line: str) -> None:
    same = "Existing file '/h/same' is in the way of '/x', will be skipped since they are the same"
    moved = "Existing file '/h/moved' is in the way of '/x', will be moved to '/h/moved.bak'"
    printed = "\n".join((same, moved, line)).replace("\x1b[1;31m", "").replace("\x1b[0m", "")
    new = home.generation("new", f"cat >&2 <<'END'\n{printed}\nEND\nexit 1")
    assert home.deploys(new).in_the_way == ("/h/.bashrc",)


def test_what_fails_otherwise_is_taken_back(home: Home) -> None:
    now = home.deploys(home.generation("new", "echo it breaks; exit 3"))
    assert (now.stage, now.in_the_way, now.why) == (Stage.REVERTED, (), "the activation ended with status 3")


def test_what_was_moved_is_read_back(home: Home) -> None:
    (home.path / "a dir").mkdir()
    (home.path / "a dir/b c").write_text("mine")
    (home.path / "link").symlink_to("/dev/null")
    new = home.generation("new", MOVES.format("a dir/b c"), "a dir/b c", "link", "absent")
    now = home.deploys(new, "bak")
    assert (now.stage, now.backed_up) == (Stage.KEPT, (f"{home.path}/a dir/b c.bak",))
    assert (home.path / "a dir/b c.bak").read_text() == "mine"


def test_a_file_that_is_lost_is_no_success(home: Home) -> None:
    (home.path / "file").write_text("mine")
    now = home.deploys(home.generation("new", 'rm "$HOME/file"; ln -s /dev/null "$HOME/file"', "file"), "bak")
    assert (now.stage, now.why) == (
        Stage.REVERTED, f"{home.path}/file was in the way, and {home.path}/file.bak does not exist"
    )  # fmt: skip


@pytest.mark.parametrize("fails", ["", "; exit 3"])
def test_what_was_moved_is_put_back_with_the_old_generation(home: Home, fails: str) -> None:
    (home.path / "file").write_text("mine")
    now = home.deploys(home.generation("new", f"{MOVES.format('file')}{fails}", "file"), "bak", "back")
    assert (now.stage, now.backed_up) == (Stage.REVERTED, ())
    assert ((home.path / "file").read_text(), (home.path / "file.bak").exists()) == ("mine", False)


def test_what_stays_in_the_way_with_an_extension() -> None:
    standing = Standing(Stage.REFUSED, in_the_way=("/h/a.bak", "/h/b"))
    assert why_refused(standing, "bak") == (
        "/h/a.bak is there already: move that away, or use another -b EXT; /h/b is in the way, of which Home "
        "Manager moves none (links, say): move that away"
    )


def test_an_extension_is_a_home_s_word_alone() -> None:
    home = Deployment("one", "me", Goal.SWITCH, GENERATION, None, 5, 5, Kind.HOME, backup="bak")
    assert " - bak; rm -f program-one" in home.begin[0]
    with pytest.raises(FleetError, match="cannot name a deployment, an operator, a specialisation or an extension"):
        Deployment("one", "me", Goal.SWITCH, GENERATION, None, 5, 5, Kind.HOME, backup="a b")
