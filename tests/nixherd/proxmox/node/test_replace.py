"""replace.sh: a file that a node boots by is replaced whole or stands as it was; killed anywhere, the next goes on."""

import hashlib
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixherd.proxmox.node.states import script

OLD, NEW = 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n', 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"\n'
EXPECTED = "iommu=pt\nquiet"


def sum_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Place:
    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "grub"

    @property
    def made(self) -> str:
        """What the boot loader was told last."""
        return (self.directory / "cfg").read_text() if (self.directory / "cfg").exists() else ""

    @property
    def notes(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "notes").glob("*"))

    def run(
        self, *, was: str = OLD, new: str = NEW, sent: str = "", judge: str = ":", update: str = ""
    ) -> "tuple[int, str]":
        update = update or f"cp {self.file} {self.directory}/cfg"
        backups, notes = self.directory / "backups", self.directory / "notes"
        argv = ["sh", "-c", script("replace.sh"), "replace", str(self.file), sum_of(was), sum_of(new)]
        argv += [str(backups), str(notes), judge, update, str(self.directory / "log")]
        done = subprocess.run(argv, input=(sent or new), text=True, capture_output=True, check=False)
        return done.returncode, done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.file.write_text(OLD)
    made.file.chmod(0o640)
    return made


def test_replaced_with_a_backup(place: Place) -> None:
    assert place.run() == (0, "")
    assert (place.file.read_text(), place.made, place.notes) == (NEW, NEW, [])
    assert place.file.stat().st_mode & 0o777 == 0o640
    [backup] = (place.directory / "backups").iterdir()
    assert (backup.name, backup.read_text()) == (f"grub.{sum_of(OLD)}", OLD)
    assert sorted(path.name for path in place.directory.iterdir()) == ["backups", "cfg", "grub", "log", "notes"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"was": "another\n"}, "has been changed meanwhile; nothing was done"),
        ({"sent": NEW[:20]}, "did not arrive whole; nothing was done"),
        ({"judge": "echo no; false"}, "no\n"),
    ],
)
def test_what_is_not_right_changes_nothing(place: Place, arguments: dict[str, str], why: str) -> None:
    status, said = place.run(**arguments)
    assert status == 1
    assert why in said
    assert (place.file.read_text(), place.made, place.notes) == (OLD, "", [])
    assert not list(place.directory.glob("*.nixherd-new"))


def test_an_update_that_fails_puts_the_old_one_back(place: Place) -> None:
    """As update-grub does where grub-script-check finds something: what it made before stands."""
    once = f"grep -q iommu {place.file} && echo wrong && exit 3; cp {place.file} {place.directory}/cfg"
    status, said = place.run(update=once)
    assert status == 1
    assert said.startswith("wrong\n")
    assert "failed; " in said
    assert "is back as it was" in said
    assert (place.file.read_text(), place.made, place.notes) == (OLD, OLD, [])
    status, said = place.run(update="exit 3")
    assert "mend that before this node boots again" in said
    assert (place.file.read_text(), place.notes) == (OLD, ["boot-loader"])


def test_killed_before_the_boot_loader_was_told(place: Place) -> None:
    status, _ = place.run(update="kill -9 $PPID")
    assert status == -signal.SIGKILL
    assert (place.file.read_text(), place.notes) == (NEW, ["boot-loader"])  # by which the next run goes on
    place.file.write_text(OLD)
    status, _ = place.run(judge="kill -9 $PPID")
    assert status == -signal.SIGKILL
    assert place.file.read_text() == OLD
    assert place.run() == (0, "")  # what the killed one left beside it is in nobody's way
    assert (place.file.read_text(), place.notes) == (NEW, [])


def test_a_link_stays_one(place: Place) -> None:
    real = place.directory / "real"
    place.file.rename(real)
    place.file.symlink_to(real)
    assert place.run()[0] == 0
    assert place.file.is_symlink()
    assert real.read_text() == NEW


def judged(text: str, directory: Path, expected: str = EXPECTED) -> subprocess.CompletedProcess[str]:
    """What judge_grub.sh says of a file, with another place for grub.d."""
    (directory / "new").write_text(text)
    (directory / "grub.d").mkdir(exist_ok=True)
    program = f"expected='{expected}'\n{script('judge_grub.sh')}".replace(
        "/etc/default/grub.d", str(directory / "grub.d")
    )
    argv = ["sh", "-c", program, "judge", str(directory / "new")]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_who_decides_what_the_kernel_is_told(tmp_path: Path) -> None:
    assert judged(NEW, tmp_path).returncode == 0
    assert judged(f"{NEW}GRUB_CMDLINE_LINUX='root=x *'\n", tmp_path, "*\niommu=pt\nquiet\nroot=x").returncode == 0
    assert judged(f"{NEW}if\n", tmp_path).returncode == 1
    assert judged(f"{NEW}GRUB_CMDLINE_LINUX_DEFAULT=quiet\n", tmp_path).returncode == 1
    (tmp_path / "grub.d").mkdir(exist_ok=True)
    (tmp_path / "grub.d" / "my.cfg").write_text('GRUB_CMDLINE_LINUX_DEFAULT="splash"\n')
    done = judged(NEW, tmp_path)
    assert done.returncode == 1
    assert "the kernel would be told: splash" in done.stdout
    (tmp_path / "grub.d" / "my.cfg").write_text('GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX more"\n')
    assert judged(NEW, tmp_path, "iommu=pt\nmore\nquiet").returncode == 0
