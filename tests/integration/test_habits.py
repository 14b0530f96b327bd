"""The fleets of tests/fleets, deployed one after another to one machine of the lab, as their authors have them.

What they say of where the machine is counts: its address is put where they name another, and said in nixherd.nix where
they name none. Its key stands there in any case.
"""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import nix_cli
from tests.habits import FLEETS, HABITS, KEY, Copy, Habit, named
from tests.integration.deployed import Fleet
from tests.integration.verified import report

pytestmark = pytest.mark.slow

# Each takes two to four seconds, all of them two minutes: one of each kind, all with `make test HABITS=all`.
_FEW = (
    *("one-file", "flake-parts", "snowfall", "blueprint", "hive-of-systems", "hive-raw", "deploy-rs-custom", "clan"),
    *("sub-flake", "homes", "hosts-function", "hosts-ssh", "wrong-hosts"),
)
DEPLOYED = [habit for habit in HABITS if habit.deployed and (os.environ.get("HABITS") == "all" or habit.name in _FEW)]
_ADDRESSES = re.compile(r"192\.0\.2\.10\b|web\.example\.org(?=\")")
_MACHINE, _HOME = ((FLEETS / name).read_text() for name in ("machine.nix", "home.nix"))
# What tests log in by, and the homes are of, beside what a fleet says of its machine.
_OURS = """{
  environment.etc.marker.text = "MARKER";
  fileSystems."/boot" = { device = "/dev/disk/by-partlabel/disk-main-ESP"; fsType = "vfat"; };
  users.users = builtins.listToAttrs (map (name: {
    inherit name;
    value = { isNormalUser = true; extraGroups = ["wheel"]; openssh.authorizedKeys.keys = ["KEY"]; };
  }) ["abl030" "al"]);
  nix.settings.trusted-users = ["@wheel"];
  security.sudo.wheelNeedsPassword = false;
}"""
Deploy = Callable[[Habit], None]


@pytest.fixture
def deploy(fleet: Fleet) -> Deploy:
    """Deploys a habit's fleet to `dev`, and asks the machine whether it runs that."""
    lab = fleet.lab
    machine, key = report(lab, "dev"), (lab.state / "home/.ssh/id_ed25519.pub").read_text().strip()

    def run(words: Sequence[str], directory: Path) -> None:
        lab.run("sh", "-c", f"cd {shlex.quote(str(directory))} && {shlex.join(words)}")

    def deployed(habit: Habit) -> None:
        def edited(text: str) -> str:
            text = text.replace(_MACHINE, _of_lab(habit.name)).replace(_HOME, _HOME.replace("at home", habit.name))
            text = _ADDRESSES.sub(machine["address"], text.replace(KEY, key))
            return re.sub(r"(?<=pubkey = \")[^\"]*", machine["host_key"], text)

        shutil.rmtree(lab.state / "habits", ignore_errors=True)
        copy = habit.copied(lab.state / "habits" / habit.name, nix_cli.stand_ins(), run, edited)
        ours = ("nixherd", "--fleet", str(copy.directory))
        if habit.line:
            words = (("hosts",), ("plan", habit.deployed[0]))
            told = ("sh", "-c", 'exec "$0" "$@" 2>&1 >/dev/null', *ours)
            lines = {line for each in words for line in lab.run(*told, *each, check=False).output.splitlines()}
            [match] = [found for line in lines if (found := re.fullmatch(habit.line, line))]
            assert habit.added
            habit.added(copy, match)
        _pin(copy, habit, machine)
        copy.commit()
        for host in habit.deployed:
            ended = lab.run("sh", "-c", 'exec "$0" "$@" 2>/dev/null', *ours, "deploy", host, "--json")
            [row] = json.loads(ended.output)["hosts"]
            assert (row["host"], row["outcome"]) == (host, "deployed")
            user = (habit.reached.get(host) or ("al",))[0]
            is_home = "@" in host or host in ("al", "web-home")
            file = f"{user}@dev" if is_home else "dev", "~/.config/words" if is_home else "/etc/marker"
            assert fleet.on(file[0], f"cat {file[1]}").output == habit.name

    return deployed


def _of_lab(name: str) -> str:
    return _MACHINE.replace("imports = [", f"imports = [{_OURS.replace('MARKER', name).replace('KEY', KEY)}", 1)


def _pin(copy: Copy, habit: Habit, machine: Mapping[str, Any]) -> None:
    """Say in nixherd.nix what the fleet does not: the key, and the address."""
    hosts, texts = "", "".join(path.read_text() for path in copy.top.rglob("*.nix"))
    for host in habit.deployed:
        is_known = machine["address"] in texts and (habit.reached.get(host) or (None,))[-1]
        entry = "" if is_known else f' addresses = ["{machine["address"]}"];'
        entry += "" if habit.name == "hosts-ssh" else f' publicKey = "{machine["host_key"]}";'
        hosts += f'hosts."{host}" = {{{entry} }}; '
    file = copy.directory / "nixherd.nix"
    before = file.read_text().rstrip().removesuffix("}") if file.exists() else "{"
    file.write_text(f"{before}{hosts}}}\n")


@pytest.mark.parametrize("habit", DEPLOYED, ids=named(DEPLOYED))
def test_it_is_deployed(habit: Habit, deploy: Deploy, fleet: Fleet) -> None:
    if not any(host in ("web", "home-web") for host in habit.deployed) and fleet.on("dev", "id al", check=False).status:
        deploy(HABITS[0])  # whose machine has the user that the homes are of
    deploy(habit)
