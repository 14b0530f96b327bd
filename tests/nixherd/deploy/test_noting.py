"""machine.sh notes of which revision a home is: when it is kept, and alone. A system's differ in the file."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixherd.deploy.options import Goal
from nixherd.deploy.protocol import Deployment, Kind, Stage, Standing, parse
from nixherd.fleet.revisions import Note

NEW = f"/nix/store/{'a' * 32}-home-manager-generation"
OTHER = f"/nix/store/{'b' * 32}-home-manager-generation"
FIRST, SECOND = "4f2c" * 10, "9ab1" * 10


@dataclass(frozen=True)
class Home:
    """A user's home, whose profile leads to some generation."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / ".local/state"

    @property
    def file(self) -> Path:
        return self.state / "nixherd/revisions"

    @property
    def notes(self) -> dict[str, Note]:
        found = [Note.parse(line) for line in self.file.read_text().splitlines()]
        return {note.path: note for note in found if note}

    def runs(self, generation: str) -> None:
        profile = self.state / "nix/profiles/home-manager"
        profile.parent.mkdir(parents=True, exist_ok=True)
        profile.unlink(missing_ok=True)
        profile.symlink_to(generation)

    def sh(self, script: str, stdin: str = "") -> str:
        env = {"HOME": str(self.path), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            ["sh", "-c", script], cwd=self.path, env=env, input=stdin, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done
        return done.stdout

    def notes_alone(self, revision: str | None, system: str = NEW) -> Standing:
        command, program = deployment(system=system, revision=revision).note
        return parse(self.sh(command, program))

    def keeps(self, revision: str | None, before: str = "") -> list[str]:
        """Has a deployment, which is at the end of its proof, kept by its own process; its states."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        own = self.state / f"nixherd/deploy-{boot}/one"
        own.mkdir(parents=True, exist_ok=True)
        (own / "program").write_text(deployment().begin[1])
        told = f" revision={revision}" if revision else ""  # the version before says nothing
        settings = f"who=me@laptop-1 goal=switch new={NEW} target={NEW} old={OTHER} deadline=5 confirm=1 "
        (own / "settings").write_text(f"{settings} generation= before={OTHER} newest=0{told}\n")
        (own / "state").write_text("keeping\n")
        self.sh(f"{before}\ntimeout 20 sh {own}/program home watch one")
        return (own / "state").read_text().split()

    def stands(self) -> Standing:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return parse(self.sh(f"sh {self.state}/nixherd/deploy-{boot}/one/program home look one none 0"))


def deployment(**changes: object) -> Deployment:
    usual = {"id": "20261129T210300-1", "who": "me@laptop-1", "goal": Goal.SWITCH, "system": NEW, "kind": Kind.HOME}
    return Deployment(**{**usual, "specialisation": None, "deadline": 5, "confirm": 1, **changes})  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    if not Path("/nix/store").is_dir():
        pytest.skip("there is no store here that a link could lead to")
    made = Home(tmp_path)
    made.runs(NEW)
    return made


def test_what_is_kept_is_noted_and_read_back(home: Home) -> None:
    assert home.keeps(FIRST)[-1] == "kept"
    note = home.notes[NEW]
    assert (note.revision, note.who, note.run) == (FIRST, "me@laptop-1", "one")
    now = home.stands()
    assert (now.stage, now.kept_revision, now.revision, now.unnoted) == (Stage.KEPT, FIRST, FIRST, None)


def test_what_the_version_before_began_is_kept_with_what_was_known(home: Home) -> None:
    assert home.keeps(None)[-1] == "kept"
    assert home.notes[NEW].revision is None
    home.notes_alone(FIRST)
    assert home.keeps(None)[-1] == "kept"
    assert home.notes[NEW].revision == FIRST


def test_that_it_cannot_be_noted_fails_nothing_that_is_good(home: Home) -> None:
    home.file.mkdir(parents=True)  # a directory, as somebody may have made it
    assert home.keeps(FIRST)[-1] == "kept"
    now = home.stands()
    assert (now.stage, now.kept_revision) == (Stage.KEPT, None)
    assert now.unnoted


def test_another_revision_of_what_runs_is_noted_alone(home: Home) -> None:
    home.keeps(FIRST)
    before = home.sh("readlink -f ~/.local/state/nix/profiles/home-manager; ls ~/.local/state/nix/profiles")
    now = home.notes_alone(SECOND)
    assert (now.stage, now.kept_revision, now.revision, now.current) == (Stage.NONE, SECOND, SECOND, NEW)
    assert home.notes[NEW].run == "20261129T210300-1"
    assert home.sh("readlink -f ~/.local/state/nix/profiles/home-manager; ls ~/.local/state/nix/profiles") == before


@pytest.mark.parametrize("revision", ["", "v1", "4f2c", "$(id)"])
def test_only_a_revision_is_noted_and_only_of_what_runs_or_boots(home: Home, revision: str) -> None:
    now = home.notes_alone(FIRST, OTHER)
    assert (now.stage, f"it runs {NEW}" in str(now.why)) == (Stage.REFUSED, True)
    program = deployment().note[1]
    word = f"'{revision}'"
    said = home.sh(f"cat >program; sh program home note 3 x me {NEW} - {word}", program)
    assert parse(said).stage is Stage.REFUSED
    assert not home.file.exists()


def test_nothing_is_noted_beside_a_deployment(home: Home) -> None:
    """Whoever begins holds the same lock; and one that goes on is told of."""
    home.keeps(FIRST)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    here = home.state / f"nixherd/deploy-{boot}"
    (here / "one/state").write_text("proving\n")
    (here / "current").symlink_to("one")
    (here / "nixherd-deploy-one.service.pid").write_text(f"{os.getpid()}\n")
    assert home.notes_alone(SECOND).busy == "me@laptop-1"
    assert home.notes[NEW].revision == FIRST
