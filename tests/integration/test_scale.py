"""Beyond one machine: Nix's own remote builders, a signed binary cache, and machines that pull from it."""

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.machines.network import GATEWAY
from tests.integration.deployed import OURS, Fleet, order, outcomes
from tests.integration.lab_driver import CHECKOUT, Ended, Lab, until
from tests.integration.verified import report

pytestmark = pytest.mark.slow

PORT = 8099
CACHE = f"http://{GATEWAY}:{PORT}"


def keys(lab: Lab) -> tuple[Path, str]:
    """A signing key's file, and its public half."""
    key = lab.state / "cache-key"
    make = f"umask 077; nix key generate-secret --key-name lab-cache-1 >{key}; nix key convert-secret-to-public <{key}"
    return key, lab.run("sh", "-c", make).output.split()[-1]


@contextmanager
def served(lab: Lab, directory: Path) -> Iterator[Path]:
    """The directory by HTTP, on the lab's own network; gives the server's log."""
    directory.mkdir(exist_ok=True)
    log = lab.state / "cache.log"
    command = f"exec python3 -m http.server --bind {GATEWAY} --directory {directory} {PORT} 2>{log}"
    with lab.under_way("sh", "-c", command):
        until(lambda: lab.run("curl", "-sfo", "/dev/null", CACHE, check=False).status == 0, 10, "the cache answers")
        yield log


def test_builds_go_where_nix_sends_them(fleet: Fleet) -> None:
    fleet.broken_by("dev2", '{ nix.settings.trusted-users = ["abl030"]; }')  # it takes what nobody signed to build with
    fleet.deploy("dev2")
    fleet.change("dev", "by a remote builder")
    fleet.on("dev2", "true")  # which leaves its key in that file
    address, known = report(fleet.lab, "dev2")["address"], fleet.lab.state / "known-dev2"
    environment = {
        "NIX_CONFIG": f"builders = ssh-ng://abl030@{address} x86_64-linux\nmax-jobs = 0",
        "NIX_SSHOPTS": f"-o UserKnownHostsFile={known} -o BatchMode=yes",
    }
    command = ("sh", "-c", "nixherd deploy dev --json 2>/dev/null")
    ended = fleet.lab.run(*command, env=environment)
    [row] = json.loads(ended.output)["hosts"]
    assert (row["outcome"], fleet.machine("dev").marker) == ("deployed", "by a remote builder")
    assert fleet.on("dev2", f"test -e {row['new']}", check=False).status == 0
    fleet.lab("break", "dev2")


def test_what_a_cache_has_is_not_sent(fleet: Fleet, tmp_path: Path) -> None:
    key, public = keys(fleet.lab)
    trusts = f'nix.settings = {{ substituters = ["{CACHE}"]; trusted-public-keys = ["{public}"]; }};'
    fleet.broken_by("dev", f"{{ {trusts} }}")
    fleet.deploy("dev")
    fleet.change("dev", "from the cache")
    cache = tmp_path / "cache"
    with served(fleet.lab, cache) as log:
        fleet.lab.run("nixherd", "publish", str(cache), "dev", "--key-file", str(key))
        [row] = fleet.deploy("dev")[1]["hosts"]
        assert (row["outcome"], fleet.machine("dev").marker) == ("deployed", "from the cache")
        name = row["new"].removeprefix("/nix/store/")[:32]
        requests = log.read_text()
        assert f"GET /{name}.narinfo" in requests
        assert "GET /nar/" in requests
        fleet.change("dev", "past the cache")
        fleet.lab.run("nixherd", "publish", str(cache), "dev", "--key-file", str(key))
        fleet.deploy("dev", "--data", "substitute_on_destination=false")
        assert fleet.machine("dev").marker == "past the cache"
        assert log.read_text() == requests
    fleet.change("dev", "though the cache is down")
    fleet.deploy("dev")
    assert fleet.machine("dev").marker == "though the cache is down"


def test_machines_pull_what_was_published_under_the_same_guard(fleet: Fleet, tmp_path: Path) -> None:
    key, public = keys(fleet.lab)
    login = (fleet.lab.state / "home/.ssh/id_ed25519.pub").read_text().strip()
    pull = f'nixherd.pull = {{ from = "{CACHE}"; publicKey = "{public}"; }}; '
    pull += f'nixherd.access = {{ kind = "trigger"; keys = ["{login}"]; }};'
    fleet.broken_by("dev", f"{{ {pull} }}")
    fleet.deploy("dev")
    cache = tmp_path / "cache"
    publish = ("nixherd", "publish", str(cache), "dev", "dev2", "--key-file", str(key), "--json")

    def pulled() -> tuple[int, str]:
        ended = fleet.on("dev", "sudo systemctl start nixherd-pull", check=False)
        return ended.status, fleet.on("dev", "sudo journalctl -u nixherd-pull -n 30 --no-pager -o cat").output

    with served(fleet.lab, cache):
        fleet.change("dev", "pulled")
        published = json.loads(fleet.lab.run(*publish).output)["published"]
        assert sorted(published) == ["dev", "dev2"]
        assert f"system={published['dev']}\n" in (cache / "systems/dev").read_text()
        status, output = pulled()
        now = fleet.machine("dev")
        assert (status, now.marker, now.current, now.profile) == (0, "pulled", *[published["dev"]] * 2), output
        assert fleet.noted("dev")[1] == fleet.head
        assert pulled()[0] == 0
        # another revision of the same system, by itself and told to
        fleet.commit()
        fleet.lab.run(*publish)
        assert (pulled()[0], fleet.noted("dev")[1], fleet.machine("dev")) == (0, fleet.head, now)
        with order(fleet, dev='access = "trigger";'):
            fleet.lab.run(*publish)
            _ended, document = fleet.deploy("dev")
            assert (outcomes(document), document["hosts"][0]["noted"]) == ({"dev": "revision only"}, fleet.head)
            assert (fleet.noted("dev")[1], fleet.machine("dev")) == (fleet.head, now)
            assert outcomes(fleet.deploy("dev")[1]) == {"dev": "unchanged"}

        fleet.broken_by("dev", f'{{ {pull} nixherd.healthChecks.own.command = "false"; '
                               "nixherd.healthChecks.own.timeout = 2; }")  # fmt: skip
        fleet.lab.run(*publish)
        status, output = pulled()
        assert (status != 0, "why=own does not pass" in output) == (True, True), output
        assert fleet.machine("dev") == now

        fleet.lab("break", "dev", "unit-fails")
        fault = fleet.lab.places.fleet / "hosts/dev/faults/unit-fails.nix"
        fault.write_text("{ environment.etc.x.text = throw ''no such thing''; }")
        fleet.commit()
        before = (cache / "systems/dev").read_text()
        ended = fleet.lab.run(*publish, check=False)
        assert (ended.status, "dev: not published: " in ended.output, "no such thing" in ended.output) == (
            1,
            True,
            True,
        )
        assert (cache / "systems/dev").read_text() == before


ROLLING = CHECKOUT / "fleet/modules/nixos/homelab/ci/rolling-flake-update.sh"
KERNEL = "readlink -e /run/booted-system/kernel"


@pytest.fixture
def branch(fleet: Fleet, tmp_path: Path) -> Iterator[Path]:
    """The fleet's origin: the lab's copy pushes to it; its inputs are the stand-ins, and one moves."""
    origin, flake = tmp_path / "origin.git", fleet.lab.places.fleet / "flake.nix"
    nodes = json.loads(flake.with_name("flake.lock").read_text())["nodes"]
    text = flake.read_text()
    for name, node in nodes["root"]["inputs"].items():
        url = rf'(\b{name}(?:\.url = | = {{\s*url = ))"[^"]*"'
        text, count = re.subn(url, rf'\1"path:{nodes[node]["locked"]["path"]}"', text)
        assert count == 1, name
    flake.write_text(text)
    fleet.commit()
    fleet.lab.run("sh", "-c", f'git clone -q --bare "$FLEET" {origin} && git -C "$FLEET" remote add origin {origin}')
    moved = Path(nodes["nixpkgs"]["locked"]["path"]) / "moved"
    moved.touch()
    yield origin
    moved.unlink()
    fleet.lab.run("sh", "-c", 'git -C "$FLEET" remote remove origin')
    for host in OURS[1:]:
        fleet.lab("break", host)


def rolled(lab: Lab, origin: Path, key: Path, state: Path) -> Ended:
    """One rolling update of the branch, by the program that its unit runs."""
    credentials, scratch = state / "credentials", state / "run"
    for directory in (credentials, scratch):
        directory.mkdir(parents=True, exist_ok=True)
    (credentials / "clone").write_text(f'[remote "origin"]\n\turl = {origin}\n')
    (credentials / "key").write_text(key.read_text())
    where = {"CREDENTIALS_DIRECTORY": str(credentials), "RUNTIME_DIRECTORY": str(scratch)}
    return lab.run("sh", str(ROLLING), "root", str(state), "-", env=where, check=False)


SMALL = """{ INPUTS outputs = _: {
  nixosConfigurations.any.config.system.build.toplevel = derivation {
    name = "any";
    system = "x86_64-linux";
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = ["-euc" "mkdir -p $out/etc; echo any >$out/etc/hostname"];
  };
}; }"""
PUSHED = """
[ -e /srv/origin.git ] || git init -q --bare -b main /srv/origin.git
[ -e /srv/repo ] || { git init -q -b main /srv/repo; git -C /srv/repo remote add origin /srv/origin.git; }
[ -e /srv/key ] || (umask 077; nix key generate-secret --key-name any-1 >/srv/key)
chown -R root: /srv/origin.git; cd /srv/repo; cat >flake.nix; git add -A
git -c user.name=x -c user.email=x commit -qm x; git push -q origin main; chown -R rolling-flake-update: /srv/origin.git
"""


def rolled_by_its_unit(fleet: Fleet, host: str, flake: str, file: Path) -> tuple[int, str]:
    """The unit of the rolling update at work on a machine, on a fleet of one system; its status, and what it said."""
    file.write_text(flake)
    fleet.on(host, f"sudo sh -euc {shlex.quote(PUSHED)}", stdin=file)
    ended = fleet.on(host, "sudo systemctl start rolling-flake-update", check=False)
    output = fleet.on(host, "sudo journalctl -u rolling-flake-update -n 30 --no-pager -o cat").output
    return ended.status, output


def test_three_hosts_follow_a_moving_branch_through_the_cache(fleet: Fleet, branch: Path, tmp_path: Path) -> None:
    lab, state = fleet.lab, tmp_path / "rolling"
    key, public = keys(lab)
    follows = (
        f'nixherd.pull = {{ from = "{CACHE}"; publicKey = "{public}"; }}; homelab.update = {{ enable = true; %s }};'
    )
    ways = {"dev": "", "dev2": "rebootOnKernelUpdate = true;", "dev3": "checkAcPower = true;"}
    builds = 'homelab.ci.rollingFlakeUpdate = { enable = true; repoDir = "/srv/repo"; signingKeyFile = "/srv/key"; };'
    modules = {host: "{pkgs, ...}: { " + follows % way for host, way in ways.items()}
    modules["dev3"] += builds
    for host, module in modules.items():
        fleet.broken_by(host, f"{module} }}")
    fleet.deploy(*OURS)
    before = {host: fleet.machine(host) for host in OURS}

    def push() -> None:
        lab.run("sh", "-c", 'cd "$FLEET" && git pull -q --rebase origin main && git push -q origin HEAD:main')

    def told(host: str) -> str:
        return (state / "cache/systems" / host).read_text().partition("system=")[2].partition("\n")[0]

    def update(host: str) -> str:
        """Have its unit started, as the timer does, and run to its end; what it said."""
        fleet.on(host, "sudo systemctl start --wait nixos-upgrade", check=False)
        return fleet.on(host, "sudo journalctl -u nixos-upgrade -n 30 --no-pager -o cat").output

    state.mkdir()
    with served(lab, state / "cache"):
        # the branch moves: one machine has a new file, one another kernel, and one may not say what it runs on
        for host in OURS:
            fleet.change(host, "followed")
        fleet.broken_by("dev2", f"{modules['dev2']} boot.kernelPackages = pkgs.linuxPackages_latest; }}")
        push()
        ended = rolled(lab, branch, key, state)
        assert ended.status == 0, ended.output
        log = lab.run("git", f"--git-dir={branch}", "log", "-1", "--format=%s %H", "main").output.strip()
        assert log.startswith("flake.lock: update ")
        assert f"revision={log.split()[-1]}\n" in (state / "cache/systems/dev").read_text()
        systems = {host: told(host) for host in OURS}

        output = update("dev")
        now = fleet.machine("dev")
        assert (now.marker, now.current, now.profile) == ("followed", *[systems["dev"]] * 2), output

        kernel = fleet.on("dev2", KERNEL).output.strip()
        fleet.on("dev2", "sudo systemctl start --no-block nixos-upgrade")

        def boots_another() -> bool:
            runs = fleet.on("dev2", KERNEL, check=False)
            return runs.status == 0 and runs.output.strip() != kernel

        until(boots_another, 180, "dev2 boots another kernel")
        assert fleet.machine("dev2").current == systems["dev2"]

        fleet.on("dev3", "sudo systemctl start nixos-upgrade")
        why = "sudo cat /var/lib/nixherd/update/waits 2>/dev/null"
        seen = until(lambda: fleet.on("dev3", why, check=False).output, 60, "dev3 waits")
        assert seen.startswith("power: unknown: ")
        assert fleet.machine("dev3") == before["dev3"]
        fleet.on("dev3", "sudo systemctl stop nixos-upgrade")

        # what is bad stops at the gate, for everybody
        fleet.change("dev", "too early")
        fleet.broken_by("dev3", "{ environment.etc.x.text = throw ''no such thing''; }")
        push()
        ended = rolled(lab, branch, key, state)
        assert (ended.status, '"dev3".config.system.build.toplevel cannot be built' in ended.output) == (1, True)
        assert {host: told(host) for host in OURS} == systems
        update("dev")
        assert fleet.machine("dev") == now

    # the unit that does it, on a machine: as a user of no other use, who cannot have the key put into the store
    status, output = rolled_by_its_unit(fleet, "dev3", SMALL.replace("INPUTS", ""), tmp_path / "flake.nix")
    assert status == 0, output
    cache = "/var/lib/rolling-flake-update/cache"
    assert "system=/nix/store/" in fleet.on("dev3", f"cat {cache}/systems/any; cat {cache}/*.narinfo").output
    steals = 'inputs.stolen = { url = "path:/run/credentials/rolling-flake-update.service"; flake = false; };'
    status, output = rolled_by_its_unit(fleet, "dev3", SMALL.replace("INPUTS", steals), tmp_path / "flake.nix")
    assert status != 0, output
    assert "the inputs cannot be updated" in output
    found = fleet.on("dev3", "sudo sh -c 'grep -rqFf /srv/key /srv && ! grep -rqFf /srv/key /nix/store'", check=False)
    assert found.status == 0
