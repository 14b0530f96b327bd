"""A stranger's way: a wheel, an empty directory, and the commands that are printed there; no checkout in sight.

Where the checkout is, the stranger's processes see an empty directory. Two things are the lab's: the flake's inputs are
locked to its stand-ins instead of being fetched, and the token is the one that it made.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.control import Running
from lab.machines.network import GATEWAY
from tests import wheels
from tests.integration.lab_driver import CHECKOUT, RUN_DEADLINE, Lab

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("installed")]

INPUTS = ("nixpkgs", "disko", "sops-nix", "nixos-images")
INVENTORY = 'hosts = ["@fleet"]\n'
SITE = """\
from pyinfra import host
from operations.words import GREETING

from nixherd.deploys import deploy, enroll, post_provision, provision
from nixherd.facts.nixos import CurrentSystem
from nixherd.operations import proxmox

enroll()
provision()
post_provision()
deploy()
proxmox.drift(name="drift: of its guest")
host.log(f"{GREETING} {host.name}: {host.get_fact(CurrentSystem)}")
"""
# Nothing of the checkout is there for COMMAND, started in DIRECTORY: `sh -c HIDDEN CHECKOUT DIRECTORY COMMAND…`.
HIDDEN = 'mount -t tmpfs none "$0" && cd "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Stranger:
    """Somebody inside the lab with an installed nixherd, a home, a directory for a fleet and one for a project."""

    lab: Lab
    place: Path

    @property
    def python(self) -> Path:
        return self.place / "tools/nixherd/bin/python"

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def fleet(self) -> Path:
        return self.place / "Meine Flotte für alle"

    @property
    def environment(self) -> dict[str, str]:
        running = Running.require(self.lab.places).environment(self.lab.places)
        kept = {name: value for name, value in running.items() if not name.startswith(("PYTEST", "PYTHON", "XDG"))}
        for name in ("FLEET", "PROXMOX_TOKEN_FILE", "VIRTUAL_ENV", "NIXHERD_LAB", "OLDPWD", "PWD"):
            kept.pop(name, None)
        path = [each for each in kept["PATH"].split(":") if not each.startswith(str(CHECKOUT))]
        return {**kept, "HOME": str(self.home), "PATH": ":".join([str(self.place / "bin"), *path]), "NO_COLOR": "1"}

    def __call__(self, line: str, *, cwd: Path | None = None, status: int = 0, stdin: str = "") -> str:
        """What a line in a shell prints, on stdout alone if that is JSON."""
        words = ["unshare", "-m", "--propagation", "slave", "sh", "-c", HIDDEN, str(CHECKOUT), str(cwd or self.fleet)]
        argv = Running.require(self.lab.places).inside([*words, "sh", "-c", line], Path("/"))
        done = subprocess.run(
            argv, env=self.environment, input=stdin, capture_output=True, text=True, timeout=RUN_DEADLINE
        )
        assert done.returncode == status, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert str(CHECKOUT) not in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout if "--json" in line else done.stdout + done.stderr

    def json(self, line: str) -> Any:
        return json.loads(self(f"{line} --json"))

    def on(self, host: str, command: str) -> str:
        """What a command prints on the machine, by OpenSSH, which knows what hosts.nix pins alone."""
        key = self(f"nix eval --raw --file hosts.nix {host}.publicKey").strip()
        address = self.address(host)
        known = self.place / f"known-{host}"
        known.write_text(f"{address} {key}\n")
        options = f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes -o BatchMode=yes"
        return self(f"ssh {options} root@{address} {shlex.quote(command)} 2>/dev/null").strip()

    def address(self, host: str) -> str:
        """Told by the machine itself through the hypervisor, past our code."""
        cards = self.lab.api(f"/nodes/prom/qemu/{self.vmid(host)}/agent/network-get-interfaces")["result"]
        found = (str(each["ip-address"]) for card in cards for each in card.get("ip-addresses", ()))
        return next(address for address in found if address.startswith("10.77."))

    def vmid(self, host: str) -> int:
        [vmid] = [vm["vmid"] for vm in self.lab.api("/nodes/prom/qemu") if vm.get("name") == host]
        return int(vmid)

    def lines(self, output: str, begin: str) -> list[str]:
        return [line.removeprefix(begin) for line in output.splitlines() if line.startswith(begin)]

    def change(self, host: str, text: str) -> None:
        """Give the host's configuration a file in /etc, and commit that."""
        configuration = self.fleet / "hosts" / host / "configuration.nix"
        old = configuration.read_text()
        line = f'  environment.etc."walk".text = "{text}";\n  system.stateVersion'
        configuration.write_text(old.replace("  system.stateVersion", line))
        self(f"git commit -qam {shlex.quote(text)}")

    def may_go(self, host: str) -> None:
        """Take what protects a guest out of the definitions, as its refusal says, and commit that."""
        definitions = self.fleet / "vms" / "definitions.nix"
        before, begin, rest = definitions.read_text().partition(f"    {host} = {{\n")
        entry, end, after = rest.partition("    };\n")
        assert "      readonly = true;\n" in entry
        entry = entry.replace("      readonly = true;\n", "")
        definitions.write_text(f"{before}{begin}{entry}{end}{after}")
        self(f"git commit -qam '{host} may go'")

    def retire(self, host: str, more: str = "") -> None:
        """Retire the host, and see that nothing but its backup is left: in the fleet, here, on the hypervisor."""
        vmid = self.vmid(host)
        refused = self(f"nixherd retire {host} --destroy {vmid} --stop --yes", status=3)
        assert "is readonly in vms/definitions.nix; refusing to destroy it" in refused
        self.may_go(host)
        [guest] = self.json(f"nixherd retire {host} --destroy {vmid} --stop --yes {more}")["guests"]
        assert (guest["fate"], guest["vmid"]) == ("destroyed", vmid)
        assert guest["backups"][0].startswith(f"local:backup/vzdump-qemu-{vmid}-")
        vms = self.lab.api("/nodes/prom/qemu")
        assert not [vm for vm in vms if vm["vmid"] == vmid or vm.get("name") == host]
        volumes = [row["volid"] for row in self.lab.api("/nodes/prom/storage/nvmeprom/content")]
        assert not [each for each in volumes if f"-{vmid}-" in each]
        assert self(f"git grep -il {host} || git status --porcelain").strip() == ""
        kept = [path for path in (self.home / ".local/state/nixherd").rglob("*") if path.name == host]
        assert kept == []


@pytest.fixture(scope="module")
def installed(running_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """The wheel in a venv of its own, as pipx makes it: of its programs nixherd alone is on PATH."""
    stranger = Stranger(running_lab, tmp_path_factory.mktemp("stranger"))
    wheel = wheels.build(tmp_path_factory.mktemp("dist"))
    wheels.install_dependencies(wheels.install(wheel, stranger.python.parents[1]))
    for directory in (stranger.home / ".ssh", stranger.fleet, stranger.place / "bin"):
        directory.mkdir(parents=True, mode=0o700)
    (stranger.place / "bin/nixherd").symlink_to(stranger.python.with_name("nixherd"))
    for name in (".ssh/id_ed25519", ".ssh/id_ed25519.pub", ".gitconfig"):
        shutil.copy2(running_lab.places.home / name, stranger.home / name)
    return stranger


@pytest.fixture(scope="module")
def stranger(installed: Stranger) -> Iterator[Stranger]:
    """With a token, and a fleet made by `nixherd init` and the first command that it names."""
    lab, fleet = installed.lab, installed.fleet
    lab("reset")
    inputs = installed.place / "inputs"
    shutil.copytree(lab.places.state / "fleet-inputs/nixpkgs", inputs / "nixpkgs")
    for name in INPUTS[1:]:
        shutil.copytree(CHECKOUT / "lab/inputs" / name, inputs / name)

    seen = installed(f"{installed.python} -c 'import nixherd, sys; print(*sys.path, nixherd.__file__)'")
    assert str(installed.python.parents[1]) in seen
    assert str(CHECKOUT) not in seen + "\n".join(installed.environment.values())
    assert installed("ls", cwd=CHECKOUT) == ""

    fingerprint = re.search(r'fingerprint = "(.*)"', lab.places.token.read_text())
    assert fingerprint is not None
    add = f"nixherd token add --endpoint {GATEWAY} --fingerprint {fingerprint[1]}"
    assert "nixherd@pve!lab for 10.77.0.1:8006" in installed(add, stdin=lab.places.token_line())

    begun = installed("nixherd init --host web01 --vm --user ops --yes --table")
    begin, *then = installed.lines(begun, "next: ")
    assert then == ["nixherd provision web01 --dry-run", "nixherd provision web01"]
    # the only word that is not typed as printed: what is fetched elsewhere is a stand-in here
    overrides = " ".join(f"--override-input {name} path:{inputs / name}" for name in INPUTS)
    assert "nix flake lock" in begin
    installed(begin.replace("nix flake lock", f"nix flake lock {overrides}"))
    assert installed("git status --porcelain") == ""
    assert {path.name for path in fleet.iterdir()} == {
        ".git",
        "common.nix",
        "flake.lock",
        "flake.nix",
        "hosts",
        "hosts.nix",
        "vms",
    }
    yield installed
    lab("reset")


def test_from_an_empty_directory_by_what_is_printed(stranger: Stranger) -> None:
    lab = stranger.lab
    before = lab.changes()
    planned = stranger("nixherd provision web01 --dry-run")
    assert '"outcome": "planned"' in planned
    assert lab.changes() == before
    [row] = stranger.json("nixherd provision web01")["hosts"]
    assert (row["outcome"], row["readonly"]) == ("in service", True)
    assert stranger.on("web01", "hostname; readlink /run/current-system").split() == [
        "web01",
        row["verified"]["system"],
    ]

    printed = stranger("nixherd new app1 --commit --yes --table")
    [then] = stranger.lines(printed, "then run: ")
    assert then == "nixherd provision app1"
    assert "in service" in stranger(then)

    stranger.change("web01", "a change")
    assert "web01  planned" in stranger("nixherd plan web01 --table")
    outcomes = {row["host"]: row["outcome"] for row in stranger.json("nixherd deploy")["hosts"]}
    assert outcomes == {"web01": "deployed", "app1": "revision only"}
    assert stranger.on("web01", "cat /etc/walk") == "a change"
    assert stranger("nixherd ssh web01 -- 'whoami; cat /etc/walk' 2>/dev/null") == "ops\na change"
    assert {row["outcome"] for row in stranger.json("nixherd deploy")["hosts"]} == {"unchanged"}

    stranger.retire("web01")
    stranger.retire("app1")
    assert stranger.json("nixherd hosts") == []
    assert "the fleet has no host; `nixherd new NAME` adds one" in stranger("nixherd plan", status=2)


def test_from_another_project_that_composes_our_operations(stranger: Stranger) -> None:
    """With `operations` of its own, and a host that declares a secret: enrolled, made, in service, deployed to."""
    project = stranger.place / "Projekt über Flotten"
    (project / "operations").mkdir(parents=True)
    (project / "operations/__init__.py").touch()
    (project / "operations/words.py").write_text("GREETING = 'from the project:'\n")
    (project / "inventory.py").write_text(INVENTORY)
    (project / "site.py").write_text(SITE)
    stranger("mkdir -p ~/.config/sops/age && age-keygen -o ~/.config/sops/age/keys.txt")
    assert "secrets/.sops.yaml" in stranger.json("nixherd secrets init")["files"]
    keys = "--user root --key-file ~/.ssh/id_ed25519.pub --no-home --state-version 25.11 --pool nixherd"
    new = stranger.json(f"nixherd new db1 --secret api_token {keys} --commit --yes")
    assert (new["evaluated"], new["findings"]) == (True, [])

    def pyinfra(words: str) -> str:
        program = shlex.quote(str(stranger.python.with_name("pyinfra")))
        return stranger(f"FLEET={shlex.quote(str(stranger.fleet))} {program} {words}", cwd=project)

    before = stranger.lab.changes()
    assert "clone template 9002 to vm" in pyinfra("--dry inventory.py site.py --limit db1")
    assert stranger.lab.changes() == before
    made = pyinfra("-y inventory.py site.py --limit db1")
    assert "deploy | activate: wave 1" in made
    assert stranger.on("db1", "hostname; cat /run/secrets/api_token | wc -c").split()[0] == "db1"
    stranger.change("db1", "of the project")
    assert "from the project: db1: {'path': '/nix/store/" in pyinfra("-y inventory.py site.py --limit db1")
    assert stranger.on("db1", "cat /etc/walk") == "of the project"
    again = pyinfra("-y @fleet/db1 site.py")
    assert re.search(r"Grand total +\d+ +- +- +\d+", again), again
    stranger.retire("db1", "--remove-secrets")
    assert "creation_rules: []" in (stranger.fleet / "secrets/.sops.yaml").read_text()
