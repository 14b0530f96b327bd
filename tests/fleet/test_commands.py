"""The fleet's commands as scripts, run with stand-ins on PATH: what they take, what they say, how they end."""

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.lab_driver import until

FLEET = Path(__file__).parents[2] / "fleet"
SCRIPTS = [*sorted((FLEET / "nix").glob("*.sh")), *sorted((FLEET / "vms").glob("*.sh"))]
# Formats `=`; a file with an open brace is none that it can read, as Alejandra says it.
ALEJANDRA = """
[ "$1" = --quiet ] || exit 99; shift; [ $# -gt 0 ] || exec cat
status=0
for file; do
  if grep -q '{$' "$file"; then
    printf 'Failed! 1 error found at:\\n- %s\\n' "$file: unexpected end"
    status=1
    continue
  fi
  grep -q '[^ ]=[^ ]' "$file" && sed -i 's/=/ = /' "$file"
done
exit $status
"""


class Place:
    """A fleet that is being worked on, with programs on PATH."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "my fleet"
        self.bin = directory / "bin"
        self.env = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "GIT_CONFIG_GLOBAL": os.devnull}
        self.env = {name: value for name, value in self.env.items() if name not in ("FLEET", "NIXHERD")}
        self.bin.mkdir()
        for part in ("nix", "vms"):
            shutil.copytree(FLEET / part, self.root / part)
        for name in ("flake.nix", "hosts.nix"):
            self.write(name, "{}\n")
        for file in self.root.rglob("*.nix"):
            file.write_text("{}\n")
        self.program("alejandra", ALEJANDRA)
        self.program("nixherd", 'printf "<%s>" "$@"; exit 3')

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.bin / name).chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def git(self, *words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=self.root, env=self.env, check=True
        )

    def run(self, script: str, *words: str, cwd: Path | None = None, **env: str) -> tuple[int, str, str]:
        """Status, stdout, stderr. Its stdin never ends: who reads it hangs."""
        argv = [str(self.root / script), *words]
        with subprocess.Popen(
            argv,
            cwd=cwd or self.root,
            env={**self.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            out, err = process.stdout.read(), process.stderr.read()
            return process.wait(10), out, err


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# fmt-nix


FMT = "nix/fmt-nix.sh"


def test_all_tracked_files_are_formatted_where_nothing_is_named(place: Place) -> None:
    place.git("init", "-q")
    tracked = [place.write(name, "a=1\n") for name in ("a.nix", "-b.nix", "deep/with blank.nix", "c\nd.nix", "é.nix")]
    kept = [place.write("notes.md", "a=1\n"), place.write("deep/linked.txt", "a=1\n")]
    (place.root / "link.nix").symlink_to("deep/linked.txt")
    gone = place.write("gone.nix", "a=1\n")
    place.git("add", ".")
    gone.unlink()
    untracked = place.write("untracked.nix", "a=1\n")
    status, out, err = place.run(FMT, "--check", cwd=place.root / "deep")
    assert (status, err) == (1, "")
    assert out.count("would format: ") == 5
    status, out, err = place.run(FMT, "--diff")
    assert (status, err) == (1, "")
    assert "--- deep/with blank.nix\n+++ deep/with blank.nix, formatted\n@@ -1 +1 @@\n-a=1\n+a = 1\n" in out
    assert {file.read_text() for file in [*tracked, *kept, untracked]} == {"a=1\n"}, "they only look"

    status, out, err = place.run(FMT)
    assert (status, err) == (0, "")
    assert {file.read_text() for file in tracked} == {"a = 1\n"}
    assert {file.read_text() for file in [*kept, untracked]} == {"a=1\n"}
    assert place.run(FMT) == (0, "", "")
    assert place.run(FMT, "--check") == (0, "", "")
    assert not list(place.root.rglob(".fmt-nix*"))


def test_files_and_directories_that_are_named(place: Place) -> None:
    place.git("init", "-q")
    place.write(".gitignore", "out\n")
    inside = [place.write(f"deep/{name}.nix", "a=1\n") for name in ("a", "b")]
    ignored, other = place.write("deep/out/x.nix", "a=1\n"), place.write("other.nix", "a=1\n")
    text = place.write("read.md", "a=1\n")
    assert place.run(FMT, "read.md", "deep/") == (
        0,
        "formatted: deep/a.nix\nformatted: deep/b.nix\n",
        "read.md: not a Nix file (*.nix), left unchanged\n",
    )
    assert {file.read_text() for file in inside} == {"a = 1\n"}
    assert {file.read_text() for file in (ignored, other, text)} == {"a=1\n"}
    assert place.run(FMT, "--", "other.nix") == (0, "formatted: other.nix\n", "")
    assert place.run(FMT, "read.md")[0] == 0
    place.write("-c.nix", "a=1\n")
    assert place.run(FMT, "other.nix", "--check", "--", "-c.nix") == (1, "would format: -c.nix\n", "")
    assert place.run(FMT, "--", "-c.nix") == (0, "formatted: -c.nix\n", "")
    for words, why in {
        ("nosuch.nix",): "fmt-nix: nosuch.nix: no such file\n",
        ("--chekc",): "fmt-nix: unknown option --chekc; see fmt-nix --help (a file of that name: -- --chekc)\n",
        ("-",): "fmt-nix: unknown option -; see fmt-nix --help (a file of that name: -- -)\n",
    }.items():
        assert place.run(FMT, *words) == (2, "", why)
    assert place.run(FMT, "--help")[0] == 0


def test_mode_owner_and_links_stay(place: Place) -> None:
    file = place.write("a.nix", "a=1\n")
    file.chmod(0o750)
    if os.geteuid() == 0:
        os.chown(file, 12, 34)
    status = file.stat()
    (place.root / "link.nix").symlink_to("a.nix")
    assert place.run(FMT, "link.nix") == (0, "formatted: link.nix\n", "")
    now = file.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
    assert stat.S_IMODE(now.st_mode) == 0o750
    assert (place.root / "link.nix").is_symlink()
    assert file.read_text() == "a = 1\n"


def test_one_that_cannot_be_formatted_is_named_and_the_others_are(place: Place) -> None:
    place.git("init", "-q")
    place.write("a.nix", "a=1\n")
    broken = place.write("broken.nix", "a=1 {\n")
    place.write("c.nix", "a=1\n")
    place.git("add", ".")
    for mode, expected in (
        ("--check", "would format: a.nix\nwould format: c.nix\n"),
        ("--write", "formatted: a.nix\nformatted: c.nix\n"),
    ):
        status, out, err = place.run(FMT, mode)
        assert (status, out) == (2, expected)
        assert err == "broken.nix: cannot be formatted: unexpected end\n"
    assert broken.read_text() == "a=1 {\n"


def test_without_a_repository_by_name_and_with_a_sick_one_not_at_all(place: Place) -> None:
    place.write("a.nix", "a=1\n")
    place.write(".direnv/x.nix", "a=1\n")
    (place.root / "result").symlink_to("/")
    assert place.run(FMT) == (0, "formatted: a.nix\n", "")
    place.git("init", "-q")
    place.write(".git/config", "[core\n")
    place.write("b.nix", "a=1\n")
    status, out, err = place.run(FMT)
    assert (status, out) == (2, "")
    assert err.startswith("fmt-nix: git cannot list the files in .: fatal: bad config line 1")
    status, out, err = place.run(FMT, cwd=Path("/"))
    assert (status, out) == (2, "")
    assert "no flake.nix in this directory or above" in err


def test_killed_while_it_formats_no_file_is_half(place: Place) -> None:
    files = [place.write(f"{number}.nix", "a=1\n") for number in range(3)]
    place.program("alejandra", f'echo >"{place.root}/begun"; exec sleep 60')
    process = subprocess.Popen([place.root / FMT], cwd=place.root, env=place.env, start_new_session=True)
    until((place.root / "begun").exists, 10, "it begins")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert {file.read_text() for file in files} == {"a=1\n"}


# lint-nix


LINT = "nix/lint-nix.sh"


@pytest.mark.parametrize(
    ("deadnix", "statix", "status", "says"),
    [
        ("exit 0", "exit 0", 0, "✓ deadnix and statix find nothing"),
        ("echo dead; exit 1", "exit 0", 1, "dead"),
        ("exit 0", "echo habit; exit 1", 2, "habit"),
        ("exit 1", "echo both; exit 1", 3, "both"),
        ("echo first; exit 1", "exit 0", 1, "▶ statix"),
        ("exit 0", "echo \"thread 'main' panicked at src/x.rs:1\" >&2; exit 101", 2, "statix panicked: a bug"),
        ("exit 0", "echo \"thread 'main' panicked at src/x.rs:1\" >&2; exit 0", 2, "counts as a failure"),
        ("echo 'thread main panicked at x'; exit 101", "exit 0", 1, "deadnix panicked"),
        ("exit 0", "kill -9 $$", 2, "statix ended with status 137: not all files were checked"),
        ("exit 0", "exit 127", 2, "statix: not found"),
        ("echo 'Error parsing file ./a.nix: x' >&2", "exit 0", 1, "deadnix printed a message but ended with status 0"),
        ("exit 0", "echo 'config error: statix.toml' >&2", 2, "not all files were checked"),
    ],
)  # fmt: skip
def test_both_look_whatever_the_first_one_finds(
    place: Place, deadnix: str, statix: str, status: int, says: str
) -> None:
    place.program("deadnix", f'[ "$*" = "--fail ." ] && [ -e flake.nix ] || exit 9\n{deadnix}')
    place.program("statix", f'[ "$*" = "check ." ] || exit 9\n{statix}')
    ended, out, err = place.run(LINT, cwd=place.root / "nix")
    assert ended == status
    assert says in out + err
    assert ("✓" in out) == (status == 0)
    assert out.index("▶ deadnix") < out.index("▶ statix")


def test_lint_takes_no_words_and_needs_a_flake(place: Place) -> None:
    assert place.run(LINT, "x") == (64, "", "Usage: lint-nix (in a flake, without arguments)\n")
    assert place.run(LINT, cwd=Path("/"))[0] == 64


# Fronts of nixherd


def words_of(place: Place, script: str, *words: str) -> list[str]:
    """What nixherd is told after the fleet; its status is passed on."""
    status, out, err = place.run(script, *words)
    assert (status, err) == (3, "")
    told = out.strip("<>").split("><")
    assert told[:2] == ["--fleet", str(place.root)]
    return told[2:]


def test_fronts_hand_their_words_on(place: Place) -> None:
    for line, becomes in {
        ("nix/check.sh", "--json", "--without", "statix"): ["check", "--json", "--without", "statix"],
        ("vms/provision.sh", "dev"): ["provision", "dev"],
        ("vms/provision.sh", "a b", "--dry-run"): ["provision", "a b", "--dry-run"],
        ("vms/post-provision.sh", "dev"): ["post-provision", "dev"],
        ("vms/post-provision.sh", "dev", "::1", "110"): ["post-provision", "dev", "--ip", "::1", "--vmid", "110"],
        ("vms/post-provision.sh", "a", "b", "1", "-h"): ["post-provision", "a", "--ip", "b", "--vmid", "1", "-h"],
        ("vms/post-provision.sh", "dev", "--ip", "::1"): ["post-provision", "dev", "--ip", "::1"],
        ("vms/proxmox-ops.sh", "list"): ["vm", "list"],
        ("vms/proxmox-ops.sh", "status", "110"): ["vm", "status", "110"],
        ("vms/proxmox-ops.sh", "start", "110"): ["vm", "start", "110"],
        ("vms/proxmox-ops.sh", "stop", "104", "--dry-run"): ["vm", "stop", "104", "--dry-run"],
        ("vms/proxmox-ops.sh", "next-vmid"): ["vm", "next-id"],
        ("vms/proxmox-ops.sh", "next-vmid", "150", "199"): ["vm", "next-id", "150", "199"],
        ("vms/proxmox-ops.sh", "next-vmid", "150"): ["vm", "next-id", "150", "999999999"],
        ("vms/proxmox-ops.sh", "next-vmid", "production"): ["vm", "next-id", "production"],
    }.items():  # fmt: skip
        assert words_of(place, *line) == becomes


# As the model's own usage has them.
ELSEWHERE = {
    "config 110": "nixherd vm config GUEST",
    "clone 9002 110 dev nvmeprom": "nixherd provision NAME",
    "configure 110 4 8192": "nixherd vm apply GUEST",
    "create-disk 110 32G": "nixherd vm add-disk GUEST DISK SIZE",
    "resize 110 scsi0 +10G": "nixherd vm resize GUEST SIZE",
    "cloudinit-drive 110": "nixherd provision NAME",
    "cloudinit-config 110 key": "nixherd provision NAME",
    "shutdown 110": "nixherd vm shutdown GUEST",
    "destroy 110 yes": "nixherd vm destroy NAME VMID",
    "get-ip 110": "nixherd vm ip GUEST",
    "wait-ssh 192.168.1.163 120 abl030": "nixherd vm ip GUEST",
    "storage": "nixherd vm storage",
}


@pytest.mark.parametrize("line", ELSEWHERE)
def test_a_verb_that_is_elsewhere_is_one_line(place: Place, line: str) -> None:
    status, out, err = place.run("vms/proxmox-ops.sh", *line.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"proxmox-ops: the command is not {line.split()[0]} but: ")
    assert ELSEWHERE[line] in err


def test_what_proxmox_ops_does_not_know(place: Place) -> None:
    assert place.run("vms/proxmox-ops.sh", "lst")[:2] == (2, "")
    status, out, err = place.run("vms/proxmox-ops.sh")
    assert (status, out) == (2, "")
    assert place.run("vms/proxmox-ops.sh", "--help") == (0, err, "")


def test_which_fleet_and_which_nixherd(place: Place, tmp_path: Path) -> None:
    script, other = "vms/proxmox-ops.sh", tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    for name in ("flake.nix", "hosts.nix"):
        (other / name).write_text("{}")

    def fleet(cwd: Path, **env: str) -> tuple[int, str]:
        status, out, err = place.run(script, "list", cwd=cwd, **env)
        return status, out.strip("<>").split("><")[1] if out else err

    assert fleet(other / "deep") == (3, str(other))
    assert fleet(tmp_path) == (3, str(place.root)), "the one that the script is of"
    assert fleet(tmp_path, FLEET=str(other)) == (3, str(other))
    assert fleet(other, FLEET=f"{other}/../other") == (3, str(other))
    assert fleet(place.root, FLEET=str(other)) == (
        2,
        f"proxmox-ops.sh: FLEET is {other}, but the current fleet is {place.root}; "
        "unset FLEET, or change to that directory\n",
    )
    assert fleet(tmp_path, FLEET=str(tmp_path))[0] == 2

    checkout = tmp_path / "checkout"
    (checkout / ".venv/bin").mkdir(parents=True)
    shutil.move(place.bin / "nixherd", checkout / ".venv/bin/nixherd")
    place.env["PATH"] = f"{place.bin}:/usr/bin:/bin"
    status, out, err = place.run(script, "list")
    assert (status, out, err.count("\n")) == (127, "", 1)
    assert err.startswith("proxmox-ops.sh: nixherd is missing; install nixherd (in its checkout: ")
    assert place.run(script, "list", NIXHERD="/nosuch/nixherd")[0] == 127
    for given in (checkout, checkout / ".venv/bin/nixherd"):
        assert place.run(script, "list", NIXHERD=str(given))[0] == 3


# The scripts themselves


def packed(script: Path) -> str:
    """As nixpkgs' writeShellApplication makes a program of it."""
    head = '#!/usr/bin/env bash\nset -o errexit\nset -o nounset\nset -o pipefail\n\nexport PATH="/x/bin:$PATH"\n\n'
    return head + (FLEET / "nix/here.sh").read_text() + script.read_text()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not on PATH")
def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    programs = []
    for script in SCRIPTS:
        programs.append(tmp_path / script.name)
        programs[-1].write_text(packed(script) if script.name != "here.sh" else script.read_text())
    done = subprocess.run(["shellcheck", *SCRIPTS, *programs], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_packed_they_do_the_same(place: Place, tmp_path: Path) -> None:
    """In one file with what they share, under errexit."""
    for script in SCRIPTS:
        if script.name != "here.sh":
            (place.root / "vms" / f"packed-{script.name}").write_text(packed(script))
            (place.root / "vms" / f"packed-{script.name}").chmod(0o755)
    place.write("a.nix", "a=1\n")
    assert place.run("vms/packed-fmt-nix.sh", "--check") == (1, "would format: a.nix\n", "")
    place.program("deadnix", "exit 1")
    place.program("statix", "exit 1")
    assert place.run("vms/packed-lint-nix.sh")[0] == 3
    assert words_of(place, "vms/packed-proxmox-ops.sh", "list") == ["vm", "list"]
    assert words_of(place, "vms/packed-post-provision.sh", "a", "b", "1") == [
        "post-provision",
        "a",
        "--ip",
        "b",
        "--vmid",
        "1",
    ]
