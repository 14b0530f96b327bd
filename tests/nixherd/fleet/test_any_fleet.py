"""Flakes that know nothing of us, with the real Nix, and how often it is asked for what."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError, FleetInvalid
from nixherd.base.run import Run
from nixherd.fleet.completing import completed
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.fleet.revisions import Tree
from nixherd.nix.builder import Builder
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.image import Image
from tests import nix_cli
from tests.nixherd.fleet.test_from_flake import KEY

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.nix

# Each configuration says so when it is evaluated, which is once for whoever looks into it.
FLAKE = """{
  outputs = _: let
    derivationOf = name: derivation { inherit name; system = "aarch64-linux"; builder = "/bin/sh"; };
    system = name: more: builtins.trace "EVALUATED ${name}" {
      config = {
        networking.hostName = name;
        services.openssh.ports = [ 2222 ];
        users.users.root.openssh.authorizedKeys.keys = [ "k" ];
        system.build.toplevel = derivationOf name;
        nixpkgs.hostPlatform.system = "aarch64-linux";
      } // more;
    };
    home = name: user: builtins.trace "EVALUATED ${name}" {
      config.home = { username = user; homeDirectory = "/home/${user}"; };
      activationPackage = derivationOf "home";
    };
  in {
    nixosConfigurations = {
      web = system "web" {
        nixherd = { address = "127.0.0.9"; publicKey = "KEY"; wave = 2; healthChecks = { }; access.kind = "shell"; };
      };
      db = system "db" { };
      broken = throw "it is broken";
      "not a name" = throw "never looked at";
    };
    homeConfigurations = { "al@web" = home "al@web" "al"; db = home "db-home" "bob"; };
    darwinConfigurations.mac = throw "never looked at";
    nixherd.hosts.db.tags = [ "data" ];
  };
}
""".replace("KEY", KEY)


@dataclass
class Counted:
    """A flake's directory, and a log of what Nix was asked for and what was evaluated."""

    directory: Path
    log: Path

    def file(self, name: str, text: str) -> None:
        """Write it, and let git know of it; what was changed this very moment is not remembered."""
        (self.directory / name).parent.mkdir(exist_ok=True, parents=True)
        (self.directory / name).write_text(text)
        subprocess.run(["git", "add", "-A"], cwd=self.directory, check=True)
        time.sleep(0.05)

    @property
    def asked(self) -> list[str]:
        """The installables that were evaluated since the last time, `.` for all outputs."""
        return re.findall(r"^ASKED .*#(\S+) --apply", self._told(), re.MULTILINE)

    @property
    def evaluated(self) -> list[str]:
        """The configurations that were, since the last time."""
        return sorted(re.findall(r"EVALUATED ([a-z@-]+)", self._told()))

    def _told(self) -> str:
        return self.log.read_text()

    def forget(self) -> None:
        self.log.write_text("")

    @property
    def fleet(self) -> Fleet:
        return load_fleet(self.directory)

    def completed(self, *host_ids: str, whole: bool = False) -> tuple[Fleet, Evaluator]:
        fleet = self.fleet
        run = Run(fleet.id)
        try:
            evaluator = Evaluator(fleet, run, partial(Tree, fleet.path))
            return completed(fleet, host_ids, evaluator, whole=whole), evaluator
        finally:
            run.close()


@pytest.fixture
def flake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """A repository with FLAKE, and a `nix` on PATH that logs how it is called and what it says."""
    environment = nix_cli.environment()
    real = next(path for each in environment["PATH"].split(":") if (path := Path(each, "nix")).exists())
    log, programs = tmp_path / "log", tmp_path / "bin"
    programs.mkdir()
    script = f"""#!/bin/sh
printf 'ASKED %s\\n' "$(printf '%s ' "$@" | tr '\\n' ' ')" >>{log}
{real} "$@" 2>{tmp_path}/stderr.$$
status=$?
cat {tmp_path}/stderr.$$ >>{log}; cat {tmp_path}/stderr.$$ >&2
exit $status
"""
    (programs / "nix").write_text(script)
    (programs / "nix").chmod(0o755)
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name, value in {**environment, **state, "PATH": f"{programs}:{environment['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    directory = tmp_path / "flake"
    directory.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=directory, check=True)
    counted = Counted(directory, log)
    counted.forget()
    counted.file("flake.nix", FLAKE)
    return counted


def test_a_list_asks_for_names_once_and_evaluates_no_configuration(flake: Counted) -> None:
    for _ in range(3):
        fleet = flake.fleet
    assert sorted(fleet.hosts) == ["al@web", "broken", "db", "db-home", "web"]
    assert fleet.hosts["db"].tags == ("data",)
    assert sorted(fleet.skipped) == ["darwinConfigurations.mac", "nixosConfigurations.not a name"]
    assert (flake.asked, flake.evaluated) == (["."], [])


def test_names_are_asked_for_again_when_the_tree_is_another(flake: Counted) -> None:
    assert "new" not in flake.fleet.hosts
    flake.file("flake.nix", FLAKE.replace("db = system", "new = 5; db = system"))
    assert "new" in flake.fleet.hosts
    assert flake.asked == [".", "."]
    assert flake.fleet.hosts
    (flake.directory / "other.nix").write_text("{ }")  # git does not know it, so that Nix does not see it
    assert flake.fleet.hosts
    assert flake.asked == [".", "."]
    (flake.directory / "flake.nix").write_text(FLAKE.replace("db = system", "newer = 5; db = system"))
    time.sleep(0.05)
    for _ in range(2):
        assert "newer" in flake.fleet.hosts  # which is not committed, nor known to the index
    assert flake.asked == [".", ".", "."]


def test_a_change_of_this_very_moment_is_not_missed(flake: Counted) -> None:
    for number in range(3):
        (flake.directory / "flake.nix").write_text(FLAKE.replace("db = system", f"h{number} = 5; db = system"))
        assert f"h{number}" in flake.fleet.hosts


def test_what_configurations_say_is_read_for_the_hosts_named_once(flake: Counted) -> None:
    fleet, _ = flake.completed("web", "broken")
    web = fleet.hosts["web"]
    assert (web.user, web.port, web.addresses, web.public_key) == ("root", 2222, ("127.0.0.9",), KEY)
    assert (web.deployment, web.unread, web.access) == ({"wave": 2}, None, "shell")
    assert re.fullmatch(r"flake.nix:\d+:\d+: it is broken; correct the Nix there", fleet.hosts["broken"].unread or "")
    assert fleet.hosts["db"].unread
    flake.forget()
    assert flake.completed("web")[0].hosts["web"] == web
    assert (flake.asked, flake.evaluated) == ([], [])
    assert flake.completed("db")[0].hosts["db"].user == "root"
    assert flake.evaluated == ["db"]


def test_access_is_a_word_or_a_set(flake: Counted) -> None:
    sets = ('access = { kind = "trigger"; keys = [ ]; trigger = throw "not looked at"; }', 'access = "trigger"')
    for access in sets:
        flake.file("flake.nix", FLAKE.replace('access.kind = "shell"', access))
        web = flake.completed("web")[0].hosts["web"]
        assert (web.unread, web.access) == (None, "trigger")


def test_who_could_build_for_another_kind_of_machine_is_said(flake: Counted) -> None:
    """A system is its host's own; what nobody here builds is evaluated all the same."""
    flake.file("flake.nix", FLAKE.replace("aarch64-linux", "mips64el-linux"))  # nobody who tests has one
    fleet, run = flake.fleet, Run("another-kind")
    try:
        evaluator = Evaluator(fleet, run, partial(Tree, fleet.path))
        assert evaluator.evaluate(("web",), "web").system == "mips64el-linux"
        with pytest.raises(FleetError) as caught:
            Builder(evaluator).build(("web",), "web")
        with pytest.raises(FleetError, match=r"flake.nix: it has no packages.mips64el-linux.kexec-installer; "):
            Builder(evaluator).require_installer(Image("mips64el-linux"))
    finally:
        run.close()
    line = str(caught.value)
    assert "\n" not in line
    assert "mips64el-linux" in line
    assert "this machine does not build that: say build_on=target, or a host that does, or give Nix a builder" in line


def test_a_home_is_reached_as_its_machine_is(flake: Counted) -> None:
    fleet, _ = flake.completed("al@web")
    home = fleet.hosts["al@web"]
    assert (home.user, home.home_directory, home.port, home.public_key) == ("al", "/home/al", 2222, KEY)
    assert flake.evaluated == ["al@web", "web"]


def test_a_plan_evaluates_each_named_host_once(flake: Counted) -> None:
    fleet, evaluator = flake.completed("web", "db", "db-home", whole=True)
    evaluator.ahead(("db", "web"))  # those that answer, as the roll call has it
    for host_id in ("web", "db"):
        config = evaluator.evaluate(("db", "web"), host_id)
        assert (config.host_id, config.system) == (host_id, "aarch64-linux")
    home = evaluator.evaluate(("db-home", "web"), "db-home")
    assert (home.host_id, fleet.hosts["db-home"].user) == ("db-home", "bob")
    assert flake.evaluated == ["db", "db-home", "web"]
    assert sorted(flake.asked) == [".", "homeConfigurations", "nixosConfigurations"]


def test_what_nixherd_nix_says_is_in_a_closed_world(flake: Counted) -> None:
    flake.file("nixherd.nix", '{ hosts.web.port = 23; hosts.db = { user = "al"; role = builtins.getEnv "HOME"; }; }')
    with pytest.raises(FleetInvalid, match=r"^nixherd.nix:1:\d+: builtins.getEnv: reads the environment; "):
        load_fleet(flake.directory)
    flake.file("nixherd.nix", '{ hosts.web.port = 23; hosts.db.user = "al"; }')
    hosts = flake.completed("web", "db")[0].hosts
    assert (hosts["web"].port, hosts["db"].user, hosts["db"].port) == (23, "al", 2222)


def test_hosts_nix_of_another_shape_by_a_mapping(flake: Counted) -> None:
    hosts = '{ web = { ip = "10.0.0.5"; user = "al"; tags = { a = 1; }; ssh.key = "%s"; }; db = { user = "al"; }; }'
    flake.file("hosts.nix", hosts % KEY)
    fields = 'fields = { addresses = "ip"; publicKey = "ssh.key"; tags = null; };'
    flake.file("nixherd.nix", f"{{ {fields} hosts.db.port = 23; defaults.port = 24; }}")
    fleet = flake.fleet
    web, db = fleet.hosts["web"], fleet.hosts["db"]
    assert (web.addresses, web.public_key, web.tags, web.port, web.user) == (("10.0.0.5",), KEY, (), 24, "al")
    assert (web.hostname, web.is_nixos, db.port, web.unread) == ("web", True, 23, None)
    assert list(fleet.hosts) == ["db", "web"]
    assert (flake.asked, flake.evaluated) == (["."], [])
    flake.file("nixherd.nix", "{ useHostsFile = false; }")
    assert sorted(flake.fleet.hosts) == ["al@web", "broken", "db", "db-home", "web"]


@pytest.mark.parametrize("output", ["legacyPackages", "packages"])
@pytest.mark.parametrize("wrong", ['throw "x"', "{ }.missing", "x: x", '"x"', "{ homeConfigurations = 5; }"])
def test_packages_that_are_wrong_stop_no_list(flake: Counted, output: str, wrong: str) -> None:
    """They are looked at for homes that a flake has there."""
    flake.file("flake.nix", f"{{ outputs = _: {{ nixosConfigurations.a = 1; {output}.x86_64-linux = {wrong}; }}; }}")
    assert (sorted(flake.fleet.hosts), flake.fleet.skipped) == (["a"], {})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{ outputs = _: { }; }", "flake.nix: it has neither nixosConfigurations nor homeConfigurations; add one, or"),
        (
            "{ outputs = _: { darwinConfigurations.mac = 1; }; }",
            "homeConfigurations; darwinConfigurations.mac is not one of ours: nix-darwin's configurations are for Macs",
        ),
        ("{ outputs = _: { nixosConfigurations = 5; }; }", "flake: Nix cannot evaluate the fleet: expected a set"),
        ("{ outputs = _: throw \"no outputs\"; }", "flake.nix:1:16: no outputs; correct the Nix there"),
        ("{ outputs = _: { nixosConfigurations.a = 1; nixherd.hosts.a.x = throw \"y\"; }; }", "flake.nix:1:"),
        ("{ outputs = _: {", "flake.nix:1:"),
        ("{ inputs.a.url = \"path:/nowhere/at/all\"; outputs = _: { }; }", "/nowhere/at/all"),
    ],
)  # fmt: skip
def test_a_flake_that_is_wrong_is_one_line(flake: Counted, text: str, line: str) -> None:
    flake.file("flake.nix", text)
    with pytest.raises(FleetError) as caught:
        load_fleet(flake.directory)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def people(flake: Counted, programs: Callable[[dict[str, str]], dict[str, str]]) -> Callable[..., str]:
    """Runs a command on the flake as people do, and gives all that it says; its status is the first word."""

    def run(*words: str) -> str:
        environment = programs({**os.environ, "FLEET": str(flake.directory), "NO_COLOR": "1"})
        done = subprocess.run(
            words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        return f"{done.returncode} {done.stdout}{done.stderr}"

    return run


def test_the_list_that_people_see(flake: Counted, people: Callable[..., str]) -> None:
    assert "web" in people("pyinfra", "inventory.py", "debug-inventory")
    shown = people("nixherd", "hosts", "--json")
    assert shown.startswith("0 ")
    rows, _ = json.JSONDecoder().raw_decode(shown[2:])
    assert [(row["host"], row["kind"], row["user"], row["key"]) for row in rows] == [
        ("broken", "nixos", None, "not read"),
        ("db", "nixos", None, "not read"),
        ("web", "nixos", None, "not read"),
        ("al@web", "home", "al", "not read"),
        ("db-home", "home", None, "not read"),
    ]
    assert "skipped darwinConfigurations.mac: nix-darwin's configurations are for Macs" in shown
    assert "skipped nixosConfigurations.not a name: its name is not one for a host" in shown
    table = people("nixherd", "hosts", "--table", "data")
    assert "db" in table
    assert "web" not in table
    assert people("nixherd", "hosts", "dta").startswith("2 HOST dta: no host or group has this name")
    assert (flake.asked, flake.evaluated) == (["."], [])


@pytest.mark.slow
def test_the_first_plan_that_people_make(flake: Counted, people: Callable[..., str]) -> None:
    shown = people("nixherd", "plan", "--allow-dirty", "db", "web", "broken")
    assert shown.startswith("4 ")  # none was reached
    assert "it is broken" in shown
    assert "nixherd.nix pins no host key of it (publicKey), so it is not connected to; `nixherd trust db`" in shown
    assert flake.evaluated == ["db", "web"]


def test_an_ssh_config_for_others_is_of_what_configurations_say(flake: Counted, people: Callable[..., str]) -> None:
    shown = people("nixherd", "ssh-config")
    assert shown.startswith("0 "), shown
    for name, user in (("web", "root"), ("al-web", "al")):
        assert f"Host {name}\n  HostName 127.0.0.9\n  Port 2222\n  User {user}\n  HostKeyAlias {name}\n" in shown
    assert "# broken: flake.nix:" in shown
    assert "# db: no key is pinned for it in nixherd.nix\n" in shown
