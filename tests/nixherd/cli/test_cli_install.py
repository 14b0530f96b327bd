"""`nixherd install`: what its options say as host data, what is refused at once, what is said of how far it came."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.process import Completed
from nixherd.cli import install as command
from nixherd.cli import output
from nixherd.deploy.report import Journal
from tests.nixherd.cli.conftest import Ask

SYSTEM = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-nixos-system-dev-26.05"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtqN0uZ7H5ZkQf5m8cYfZ7mW8zV2lN1XkY0Rk1a2b3c"
Note = tuple[str, str | None, dict[str, Any]]
BEGUN: Note = ("run", None, {"hosts": ["dev"]})
WIPE = "wipe /dev/sda of dev, partition, format and mount below /mnt"
VERIFIED: Note = ("found", "dev", {"verified": {"address": "192.0.2.110", "system": SYSTEM}})


class FakePyinfra:
    """Leaves this journal behind, another in a dry run, and records how it was called."""

    def __init__(self, *notes: Note, plan: Sequence[Note] = ()) -> None:
        self.notes, self.plan, self.calls = notes, plan, list[list[str]]()

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        self.calls.append(list(argv))
        [place] = [word.partition("=")[2] for word in argv if word.startswith("journal=")]
        journal = Journal(Path(place))
        for event, host, about in self.plan if "--dry" in argv else self.notes:
            journal.note(event, host, **about)
        return Completed("", "", 0)

    @property
    def data(self) -> list[str]:
        """All host data of the last call but the journal's place."""
        words = self.calls[-1]
        pairs = [words[number + 1] for number, word in enumerate(words) if word == "--data"]
        return [pair for pair in pairs if not pair.startswith("journal=")]


def step(text: str, *, planned: bool = False) -> Note:
    return "step", "dev", {"text": text, "planned": planned}


MADE = (step(WIPE), ("made", "dev", {"text": WIPE}))
SHA256 = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.fixture
def install(ask: Ask) -> Ask:
    """Runs `nixherd install WORDS`."""
    return partial(ask, "install")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `tree`, `key` and `kexec.tar.gz` are, which is the current directory."""
    (tmp_path / "files/tree").mkdir(parents=True)
    for name in ("key", "kexec.tar.gz"):
        (tmp_path / "files" / name).touch()
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path / "files"


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ("", []),
        ("--address 203.0.113.7 --user root", ['ssh_hostname="203.0.113.7"', 'install_user="root"']),
        ("--extra-files tree", ['extra_files="HERE/tree"']),
        (
            "--extra-files tree --chown /home/a 1000:100 --chown /b 1:1",
            ['extra_files="HERE/tree"', 'extra_owners={"/home/a": "1000:100", "/b": "1:1"}'],
        ),
        ("--disk-encryption-key /tmp/a.key key", ['disk_encryption_keys={"/tmp/a.key": "HERE/key"}']),
        ("--hardware generate", ["hardware_configuration=true"]),
        ("--hardware facter --hardware-path a/facter.json", ['hardware_report="a/facter.json"']),
        ("--phases kexec,disko", ['phases="kexec,disko"']),
        ("--no-reboot", ['phases="kexec,disko,install"']),
        ("--phases install,reboot --no-reboot", ['phases="install"']),
        ("--phases kexec,disko,install,reboot", []),
        ("--kexec kexec.tar.gz", ['kexec="HERE/kexec.tar.gz"']),
        (
            f"--kexec https://example.org/a.tar.gz --kexec-sha256 {SHA256}",
            ['kexec="https://example.org/a.tar.gz"', f'kexec_sha256="{SHA256}"'],
        ),
        ("--data boot_deadline=600", ["boot_deadline=600"]),
    ],
)
def test_options_are_host_data(install: Ask, files: Path, words: str, data: list[str]) -> None:
    fake = FakePyinfra(BEGUN, *MADE, VERIFIED)
    assert install("dev", *words.split(), by=fake).status == 0
    assert fake.data == [each.replace("HERE", str(files)) for each in data]
    assert fake.calls[-1][1:6] == ["-y", "--parallel", "100", "inventory.py", "deploys/install.py"]


def test_a_host_key_is_one_datum(install: Ask) -> None:
    fake = FakePyinfra(BEGUN, VERIFIED)
    install("dev", "--host-key", KEY, by=fake)
    assert fake.data == [f'host_key="{KEY}"']


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("nosuch", "HOST nosuch: no host or group has this name"),
        ("nixos --address 192.0.2.1", "--address is one machine's, and "),
        ("all", "install: caddy is a home, which has no disks; name machines"),
        ("dev --kexec https://example.org/a.tar.gz", "say its hash as well, --kexec-sha256"),
        ("dev --kexec https://example.org/a.tar.gz --kexec-sha256 x", "kexec_sha256=x: is not a SHA-256"),
        ("dev --phases disko,kexec", "disko,kexec is not some of kexec,disko,install,reboot, in this order"),
        ("dev --phases nosuch", "nosuch is not some of kexec,disko,install,reboot, in this order"),
        ("dev --phases reboot --no-reboot", "--no-reboot leaves no phase"),
        ("dev --extra-files nowhere", "/nowhere: no such directory; correct its path"),
        ("dev --extra-files tree --phases kexec", "--extra-files is for the phase install, which is left out"),
        ("dev --chown /a 1:1", "--chown says whose files of --extra-files are; name a directory with it"),
        ("dev --extra-files tree --chown /a 1:1 --chown /a 2:2", "extra_owners: a path is given twice"),
        ("dev --disk-encryption-key /tmp/a nowhere", "/nowhere: no such file; correct its path"),
        ("dev --disk-encryption-key /tmp/a key --phases install", "--disk-encryption-key is for the phase disko"),
        ("dev --kexec a.tar.gz --phases disko", "--kexec is for the phase kexec, which is left out"),
        ("dev --kexec a.tar.gz --kexec-sha256 x", "--kexec-sha256 is of the file at --kexec URL"),
        ("dev --hardware-path a.nix", "--hardware-path: say what is to be written there"),
        ("dev --hardware nosuch", "'nosuch' is not one of 'generate', 'facter'"),
        ("dev --data phases", "'phases' is not NAME=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_starts_nothing(install: Ask, files: Path, words: str, line: str) -> None:
    ended = install(*words.split())
    assert (ended.status, ended.out) == (2, "")
    assert line in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_end_that_was_read_back_is_said(install: Ask) -> None:
    ended = install("dev", "--table", by=FakePyinfra(BEGUN, *MADE, VERIFIED))
    assert (ended.status, ended.out) == (0, f"dev: installed: at 192.0.2.110 runs {SYSTEM}\n")
    reached: Note = ("found", "dev", {"reached": "installed, not rebooted"})
    ended = install("dev", "--no-reboot", "--table", by=FakePyinfra(BEGUN, *MADE, reached))
    assert (ended.status, ended.out) == (0, "dev: installed, not rebooted\n")
    ended = install("dev", "--no-reboot", "--json", by=FakePyinfra(BEGUN, *MADE, reached))
    document = json.loads(ended.out)
    assert document["phases"] == ["kexec", "disko", "install"]
    assert [(row["outcome"], row["steps"], row["reached"]) for row in document["hosts"]] == [
        ("done", [WIPE], "installed, not rebooted")
    ]


def test_an_end_that_nobody_read_back_is_not_known(install: Ask) -> None:
    ended = install("dev", "--table", by=FakePyinfra(BEGUN, *MADE))
    assert (ended.status, ended.out) == (5, "dev: unknown: what runs there was not read back\n")


def test_a_plan_is_shown_and_nothing_else(install: Ask) -> None:
    fake = FakePyinfra(plan=(BEGUN, step(WIPE, planned=True)))
    ended = install("dev", "--dry-run", "--table", by=fake)
    assert (ended.status, ended.out) == (0, f"dev: would {WIPE}\n")
    assert [("--dry" in call) for call in fake.calls] == [True]


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_plan_comes_first_and_is_asked_for(
    install: Ask, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    asked: list[str] = []

    def confirmed(question: str, **_: Any) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(output, "can_ask", lambda: True)
    monkeypatch.setattr(command, "can_ask", lambda: True)
    monkeypatch.setattr("click.confirm", confirmed)
    fake = FakePyinfra(BEGUN, *MADE, VERIFIED, plan=(BEGUN, step(WIPE, planned=True)))
    ended = install("dev", "--table", by=fake)
    assert asked == ["Wipe dev like that?"]
    assert f"dev: would {WIPE}\n" in ended.err
    assert [("--dry" in call) for call in fake.calls] == [True, False][: 1 + answer]
    assert ended.status == (0 if answer else 2)
    asked.clear()
    assert install("dev", "--yes", "--table", by=fake).status == 0
    assert asked == []
