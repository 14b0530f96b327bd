"""`make demo`: the main workflow in the lab as an operator runs it, with a proof through other channels.

Every command runs as shown and its output is checked: the exit status is 0 only if everything was proven. What is
printed is what a stranger needs to follow it; all of the output is in a file that is named, or printed with VERBOSE=1.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from lab.errors import LabError
from lab.places import Places

PROVISION = "pyinfra -y inventory.py deploys/enroll.py deploys/provision.py --limit dev"
POST_PROVISION = "pyinfra -y inventory.py deploys/post_provision.py --limit dev"
CHANGE = (
    """cd "$FLEET"/hosts/dev && sed -i '/stateVersion/i environment.etc.motd.text = "deployed";' configuration.nix"""
)
COMMIT = "git -C \"$FLEET\" commit --all --message 'dev: a message of the day'"
# The guard below all callers: a program that tries to stop a protected VM.
STOP_104 = """python -c '
import os; from pathlib import Path
from nixherd.fleet.load import load_fleet
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.steps import Stop
client = Hypervisor(load_fleet(os.environ["FLEET"]), Path(os.environ["PROXMOX_TOKEN_FILE"])).client
Stop("prom", 104).begin(client)
' 2>&1 | tail -n 1"""
SYSTEM = "nixosConfigurations.dev.config.system.build.toplevel"
SSH = 'ssh -F "$PINNED" dev'
_WIDTH = 110  # of what is printed; the log has all of it
_SHOWN = 25  # lines of a command that did not do what it should


class Stage:
    """What is printed and what is logged. `is_verbose`: both are the same."""

    def __init__(self, log: TextIO, *, is_verbose: bool) -> None:
        self._log, self.is_verbose = log, is_verbose

    def tell(self, text: str) -> None:
        """Print a line, and log it."""
        print(text, flush=True)
        self.note(text)

    def note(self, text: str) -> None:
        """Log a line of output."""
        self._log.write(f"{text}\n")
        self._log.flush()

    def output(self, line: str) -> None:
        """Take a line of a command's output."""
        self.tell(f"      {line}") if self.is_verbose else self.note(f"      {line}")


def demo(places: Places) -> None:
    """Run the demo. Raises LabError naming what differs from the expectation."""
    if not Path("inventory.py").exists():
        raise LabError("run the demo from the checkout: make demo")
    places.state.mkdir(exist_ok=True)
    log = places.state / "demo.log"
    with alone(places.state / "demo.lock"), log.open("w") as file:
        stage = Stage(file, is_verbose=bool(os.environ.get("VERBOSE")))
        began = time.monotonic()
        directory = places.state / "demo"  # a running lab stays up
        os.environ["NIXHERD_LAB"] = str(directory)
        stage.tell("The lab: a Proxmox VE API, and real machines with systemd, SSH and disks, on a network of its own.")
        lab(stage, "down")  # what a killed demo has left
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        lab(stage, "up")
        try:
            Story(Places.here(), stage).tell()
        except LabError:
            stage.tell(f"All output: {os.path.relpath(log)}")
            raise
        finally:
            lab(stage, "down")
            shutil.rmtree(directory)
        stage.tell(f"\nAll of it was proven, in {time.monotonic() - began:.0f} s. All output: {os.path.relpath(log)}")


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other demo of this checkout runs, and say so once."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another demo runs in this checkout; this one begins when that has ended.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lab(stage: Stage, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "lab", *words], check=False, capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        stage.output(line)
    require(done.returncode == 0, f"lab {' '.join(words)} ended with status {done.returncode}: {done.stderr.strip()}")


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise LabError(f"demo: {otherwise}")


class Story:
    """The sections. Each says what it shows, runs its commands, and names what is proven then."""

    def __init__(self, places: Places, stage: Stage) -> None:
        self._places, self._stage, self._number = places, stage, 0

    def tell(self) -> None:
        """Tell all of it."""
        self._planned()
        self._made()
        self._proof()
        self._daily()
        self._in_service()
        self._deployed()
        self._broken()
        self._guarded()

    def _planned(self) -> None:
        self.section("The plan for a VM that does not exist yet")
        with self.unchanged():
            dry = PROVISION.replace("-y", "--dry")
            self.runs(dry, "clone template 9002 to vm 110", shows=("clone template", "wipe /dev/sda", "3 secrets"))
        self.runs('git -C "$FLEET" status --short --branch', "## main\n", quiet=True)
        self.proven("no changing request reached the hypervisor, and no file of the fleet has changed")

    def _made(self) -> None:
        self.section("The run: from nothing to a NixOS machine that decrypts its secrets")
        self.runs(
            PROVISION,
            "decrypted /run/secrets/api_token",
            shows=("fresh clone answers", "installer answers", "installed system answers"),
        )
        commit = self.runs('git -C "$FLEET" show --stat --format=%s', "secrets/dev.yaml", quiet=True)
        require("hosts.nix" in commit, "the commit does not pin the host key")
        table = self.runs("nixherd secrets status --json", quiet=True)
        [file] = [each for each in json.loads(table)["files"] if each["file"] == "secrets/dev.yaml"]
        require(sorted(file["recipients"]) == ["abl030", "dev"], f"dev.yaml is for {file['recipients']}")
        self.proven("one commit pins its key and encrypts its secrets for it and its admin alone")

    def _proof(self) -> None:
        self.section("The same, asked of the machine itself through other channels")
        build = f'cd "$FLEET" && nix build --no-link --print-out-paths .#{SYSTEM}'
        built = self.runs(build, shows=("/nix/store",)).strip()
        address, key = (verified(self._places)[part] for part in ("address", "host_key"))
        self._pin(address, key)
        self.runs(f"{SSH} readlink /run/current-system", built, quiet=True)
        self.runs(f"{SSH} hostname", "dev", quiet=True)
        self.runs(f"ssh-keyscan -t ed25519 {address}", key.split()[1], quiet=True)
        self.runs(f"{SSH} findmnt -n /", "/dev/sda", quiet=True)
        self.runs(f"{SSH} sudo sgdisk -p /dev/sda", "EF00", quiet=True)
        self.runs(f"{SSH} sudo ls -l /run/secrets/", "api_token", quiet=True)
        there = f"{SSH} sudo cat /run/secrets/api_token | sha256sum"
        here = 'sops decrypt --extract \'["api_token"]\' "$FLEET"/secrets/dev.yaml | sha256sum'
        same = self.runs(here, "  -", quiet=True).split() == self.runs(there, "  -", quiet=True).split()
        require(same, "the machine decrypted a different secret")
        self.proven("it runs what Nix builds here, has the pinned key, boots from its disk, and has the same secret")
        with self.unchanged():
            again = self.runs(PROVISION, "No changes", quiet=True)
        require("[dev]        Success" not in again, "the second run changed something")
        self.proven("the same run again changes nothing")
        self.built = built

    def _daily(self) -> None:
        self.section("Daily use")
        self.runs("nixherd vm list --table", "managed", shows=("dev ",))
        self.runs("nixherd vm snapshot dev clean --table", "snapshot vm 110 as clean")
        self.runs("nixherd vm snapshot dev clean", "vm 110 (dev): it has a snapshot clean", status=2, quiet=True)
        self.runs("nixherd vm start dev --table", "nothing to do: it runs", shows=("nothing to do",))
        self.runs("pyinfra -y inventory.py --limit dev exec -- uptime", "load average", quiet=True)
        self.runs("pyinfra inventory.py --limit dev fact facts.nixos.CurrentSystem", self.built, quiet=True)
        self.proven("what is done already is not done again, and says why; commands and facts reach the machine")

    def _in_service(self) -> None:
        self.section("In service")
        self.runs(
            POST_PROVISION,
            "delete the private key of dev here; the machine has it",
            shows=("is readonly; docs",),
        )
        self.runs('git -C "$FLEET" show --stat', "docs/machines.md", quiet=True)
        left = self.runs("find \"$HOME\"/.local/state/nixherd -name 'ssh_host*'", quiet=True)
        require(left == "", f"a private key is left here: {left}")
        check = "pyinfra -y inventory.py deploys/secrets_check.py --limit dev"
        self.runs(check, "decrypted /run/secrets/wifi/password", quiet=True)
        with self.unchanged():
            self.runs("nixherd vm stop dev", "vm 110 (dev) is readonly", status=3, shows=("readonly",))
        self.proven("nothing is sent that could stop it, and its private key is not here any more")

    def _deployed(self) -> None:
        self.section("A change of its configuration, deployed")
        self.runs(CHANGE)
        self.runs(COMMIT, "1 file changed")
        self.runs("nixherd plan dev --table", "dev  planned", shows=("etc:",))
        self.runs("nixherd deploy dev --table", "dev  deployed", shows=("dev  deployed",))
        self.runs(f"{SSH} cat /etc/motd", "deployed", quiet=True)
        self.runs("nixherd deploy dev --table", "dev  unchanged", quiet=True)
        self.proven("the machine shows the change, verified and kept; deployed again, it is unchanged")

    def _broken(self) -> None:
        self.section("A system that breaks, and the machine that goes back by itself")
        self.runs("python -m lab break dev unit-fails")
        planted = 'git -C "$FLEET" show --format=%s -- hosts/dev/faults/unit-fails.nix'
        self.runs(planted, "exit 7", shows=("dev: unit-fails", "ExecStart"))
        before = self.runs(f"{SSH} readlink /run/current-system", quiet=True)
        self.runs(
            "nixherd deploy dev --table", "rolled back", status=1, shows=("dev  rolled back", "a unit that fails")
        )
        self.runs(f"{SSH} systemctl is-system-running", "running", quiet=True)
        after = self.runs(f"{SSH} readlink /run/current-system", quiet=True)
        require(before == after, f"it runs {after}, not {before}")
        self.proven("it runs what it ran before, and everything on it is well")

    def _guarded(self) -> None:
        self.section("The guard: vm 104 is readonly in the definitions")
        with self.unchanged():
            self.runs("pyinfra -y inventory.py deploys/provision.py --limit doc1", "104", status=3, quiet=True)
            self.runs("nixherd vm stop doc1", "vm 104 (doc1) is readonly", status=3, shows=("readonly",))
            refused = "vm 104 (doc1) is readonly in vms/definitions.nix; refusing POST /nodes/prom/qemu/104/status/stop"
            self.runs(STOP_104, refused, quiet=True)
        self.proven("nothing was sent: not by a deploy, a command, or a program that calls the library below both")

    # How it is told

    def section(self, title: str) -> None:
        self._number += 1
        self._stage.tell(f"\n== {self._number}. {title}")

    def proven(self, text: str) -> None:
        self._stage.tell(f"  proven: {text}")

    def runs(
        self, command: str, expected: str = "", status: int = 0, shows: tuple[str, ...] = (), *, quiet: bool = False
    ) -> str:
        """Run a command in the lab and return its output; print the first line with each of `shows`.

        `quiet`: only the log has it. Raises LabError if the output lacks what is expected.
        """
        stage, began = self._stage, time.monotonic()
        say = stage.note if quiet and not stage.is_verbose else stage.tell
        say(f"  $ {command}")
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "run", "--", "sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            stage.output(line.rstrip("\n"))
            lines.append(line)
        output, ended = "".join(lines), process.wait()
        if ended != status or expected not in output:
            for line in lines[-_SHOWN:]:
                print(f"      {line.rstrip()}")
            require(ended == status, f"status {ended} instead of {status}: {command}")
            raise LabError(f"demo: {expected!r} is not in what it printed: {command}")
        if not stage.is_verbose:
            for line in excerpt(lines, shows):
                print(f"      {line}", flush=True)
        if (seconds := time.monotonic() - began) > 15 and not quiet:
            stage.tell(f"      … {len(lines)} lines in {seconds:.0f} s")
        return output

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Require that no request other than GET reaches the hypervisor meanwhile, by the lab's own log."""
        before = self._changing_requests()
        yield
        require(self._changing_requests() == before, "a changing request was sent")

    def _changing_requests(self) -> int:
        with self._places.api_log.open() as log:
            return sum(json.loads(line)["method"] != "GET" for line in log)

    def _pin(self, address: str, key: str) -> None:
        """Write the configuration of an ssh that knows this key alone; the commands find it in $PINNED."""
        known = self._places.state / "demo-known-hosts"
        known.write_text(f"{address} {key}\n")
        config = self._places.state / "demo-ssh"
        lines = ["Host dev", f"HostName {address}", f"User {user(self._places)}", f'UserKnownHostsFile "{known}"']
        lines += ["StrictHostKeyChecking yes", "BatchMode yes", f'IdentityFile "{self._places.home}/.ssh/id_ed25519"']
        config.write_text("\n  ".join(lines) + "\n")
        os.environ["PINNED"] = str(config)


def excerpt(lines: list[str], shows: tuple[str, ...]) -> list[str]:
    """Return the first line with each of these words, without pyinfra's margin, no wider than fits."""
    found = []
    for words in shows:
        line = next((line for line in lines if words in line), "")
        text = re.sub(r"^\s*\[[\w-]+\]\s+", "", line.rstrip("\n")).rstrip()
        found += [text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"] if text else []
    return found


def verified(places: Places) -> dict[str, str]:
    """Return what the run recorded as verified."""
    [report] = (places.home / ".local/state/nixherd").glob("*/dev/verified.json")
    document: dict[str, str] = json.loads(report.read_text())
    return document


def user(places: Places) -> str:
    """Return dev's admin user from hosts.nix."""
    hosts = (places.fleet / "hosts.nix").read_text()
    match = re.search(r'user = "([^"]+)"', hosts)
    require(match is not None, "no user in hosts.nix")
    assert match is not None
    return match[1]
