"""Other ways in and out: generations, nixos-rebuild, flake references, a machine that pulls."""

import ipaddress
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.deployed import NO_TOKEN, Fleet, order, outcomes
from tests.integration.lab_driver import Ended, edit, until
from tests.integration.verified import report

pytestmark = pytest.mark.slow


def test_generations_are_gone_back_to_and_thrown_away(fleet: Fleet) -> None:
    for text in ("generation a", "generation b"):
        fleet.change("dev", text)
        fleet.deploy("dev")
    before = fleet.machine("dev")
    ad_hoc = ("-y", "inventory.py", "--limit", "dev")
    fleet.lab.pyinfra(*ad_hoc, "operations.nixos.rollback")
    now = fleet.machine("dev")
    assert (now.marker, now.current == now.profile, now.default != before.default) == ("generation a", True, True)
    again = fleet.lab.pyinfra(*ad_hoc, "operations.nixos.activated", f"system={now.current}")
    assert "No changes" in again.output
    assert (
        "generation 99 does not exist"
        in fleet.lab.pyinfra(*ad_hoc, "operations.nixos.rollback", "generation=99", check=False).output
    )
    fleet.lab.pyinfra(*ad_hoc, "operations.nixos.activated", f"system={before.current}", "goal=test")
    assert (fleet.machine("dev").current, fleet.machine("dev").profile) == (before.current, now.profile)
    for number, days in ((1, 50), (2, 40)):  # the one that was there 30 days ago is kept
        fleet.on("dev", f"sudo touch -h -d '{days} days ago' /nix/var/nix/profiles/system-{number}-link")
    fleet.lab.pyinfra(*ad_hoc, "operations.nixos.gc", "older_than=30d")
    assert "system-1-link" not in fleet.on("dev", "ls /nix/var/nix/profiles").output
    assert fleet.machine("dev").profile == now.profile


REBUILD = """#!/bin/sh
# What nixos-rebuild does, step by step, and what it was told.
case "$*" in --help) echo "usage: nixos-rebuild [--no-reexec] [--sudo]"; exit ;; esac
printf '%s\\n' "$@" >>"$RECORD"
action=$1 flake=${3%#*} host=${3#*#} target=$6
set -e
system=$(nix build --no-link --print-out-paths "$flake#nixosConfigurations.$host.config.system.build.toplevel")
nix copy --no-check-sigs --to "ssh://$target" "$system"
ssh $NIX_SSHOPTS "$target" sudo nix-env -p /nix/var/nix/profiles/system --set "$system"
ssh $NIX_SSHOPTS "$target" sudo "$system/bin/switch-to-configuration" "$action"
"""


def test_upstreams_own_command_is_one_switch_away(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "nixos-rebuild").write_text(REBUILD)
    (tmp_path / "nixos-rebuild").chmod(0o755)
    fleet.change("dev", "by nixos-rebuild")
    command = f"PATH={tmp_path}:$PATH exec nixherd deploy dev --data engine=nixos-rebuild --json 2>/dev/null"
    ended = fleet.lab.run("env", f"RECORD={tmp_path / 'argv'}", "sh", "-c", command)
    assert outcomes(json.loads(ended.output)) == {"dev": "deployed"}
    argv = (tmp_path / "argv").read_text().splitlines()
    address = report(fleet.lab, "dev")["address"]
    assert argv == [
        *("switch", "--flake", f"{fleet.lab.places.fleet}#dev", "--no-reexec", "--target-host", f"abl030@{address}"),
        "--sudo",
    ]
    assert fleet.machine("dev").marker == "by nixos-rebuild"


def test_who_builds(fleet: Fleet) -> None:
    """The machine itself, or another one of the fleet; what it builds is there, and here where it is to go on."""

    def has(where: str, path: str) -> bool:
        return fleet.on(where, f"test -e {path}", check=False).status == 0

    def is_here(path: str) -> bool:
        return fleet.lab.run("test", "-e", path, check=False).status == 0

    fleet.change("dev", "built by itself")
    before = fleet.machine("dev")
    plan = fleet.lab.run("sh", "-c", "nixherd plan dev --data build_on=target --json 2>/dev/null")
    [row] = json.loads(plan.output)["hosts"]
    assert (row["outcome"], row["why"]) == ("planned", "built on target, so what changes is not known yet")
    assert not has("dev", row["new"])
    _ended, document = fleet.deploy("dev", "--data", "build_on=target")
    [row] = document["hosts"]
    assert (row["outcome"], fleet.machine("dev").marker) == ("deployed", "built by itself")
    assert row["old"] == before.current
    assert any("nixos-system-dev" in change for change in row["diff"])
    assert not is_here(row["new"])

    fleet.change("dev", "built by dev2")
    fleet.change("dev3", "built by dev2")
    _ended, document = fleet.deploy("dev", "dev3", "--data", "build_on=dev2")
    assert outcomes(document) == {"dev": "deployed", "dev3": "deployed"}
    assert all(has("dev2", row["new"]) and is_here(row["new"]) for row in document["hosts"])
    assert fleet.machine("dev3").marker == "built by dev2"

    no = 'derivation { name = "no"; builder = "/bin/false"; system = "x86_64-linux"; }'
    fleet.broken_by("dev", f"{{ environment.etc.broken.source = {no}; }}")
    fleet.change("dev2", "goes on")
    ended, document = fleet.deploy("dev", "dev2", "--data", "build_on=target", check=False)
    assert (ended.status, outcomes(document)) == (1, {"dev": "failed", "dev2": "deployed"})
    assert "no.drv" in document["hosts"][0]["why"]


def test_the_machine_that_it_runs_on(fleet: Fleet) -> None:
    """nixherd itself on dev: no SSH to oneself, and no other machine's system."""
    if sys.base_prefix == "/usr":
        pytest.skip("the system's own Python is of another version than the machines'")
    lab, checkout = fleet.lab, Path(__file__).parents[2]
    needed = [sys.base_prefix, sys.prefix, str(lab.places.fleet), str(lab.places.fleet.parent / "fleet-inputs")]
    needed += [str(path) for path in checkout.iterdir() if path.name not in (".git", ".lab", ".venv", ".bench")]
    archive = lab.state / "nixherd.tar"
    names = [path.lstrip("/") for path in needed]
    with order(fleet, dev="healthChecks.ssh.tcp = 22;"):
        lab.run("tar", "-C", "/", "--exclude=test", "--exclude=__pycache__", "-cf", str(archive), *names)
    fleet.on("dev", "sudo tar -C / -xf -", stdin=archive)
    archive.unlink()
    root, before = lab.places.fleet, fleet.machine("dev")

    def by_root(command: str) -> Ended:
        script = f"export PATH={sys.prefix}/bin:$PATH FLEET={root}; cd {root} && {command}"
        return fleet.on("dev", f"sudo -H sh -c {shlex.quote(script)}", check=False)

    def here(words: str) -> tuple[int, dict[str, str], dict[str, Any]]:
        ended = by_root(f"nixherd {words} 2>/dev/null")
        document = json.loads(ended.output)
        return ended.status, outcomes(document), document["hosts"][0]

    here_too = 's/system.stateVersion/environment.etc.here.text = "here"; system.stateVersion/'
    by_root(f"sed -i '{here_too}' hosts/dev/configuration.nix; git commit -q --no-verify -am here")
    status, ended, row = here("deploy --local")
    assert (status, ended, row["address"]) == (0, {"dev": "deployed"}, "this machine")
    now = fleet.machine("dev")
    assert (now.current, now.profile) == (row["new"], row["new"])
    assert now.current != before.current
    assert here("deploy --local")[:2] == (0, {"dev": "unchanged"})
    status, ended, row = here("deploy --local dev2")
    assert (status, ended) == (3, {"dev2": "unreachable"})
    assert "this machine is called dev, and dev2 in hosts.nix dev2" in row["why"]
    status, ended, row = here("reboot --local --force")
    assert (status, ended) == (0, {"dev": "left to its owner"})
    assert "dev is the machine that this runs on" in row["why"]


def test_any_flake_reference_without_a_checkout(fleet: Fleet) -> None:
    fleet.change("dev", "by reference")
    revision = fleet.lab.run("sh", "-c", "git -C $FLEET rev-parse HEAD").output.strip()
    (fleet.lab.places.fleet / "hosts/dev/marker").write_text("not committed")
    _ended, document = fleet.deploy("--flake", f"git+file://{fleet.lab.places.fleet}?ref=main#dev")
    assert outcomes(document) == {"dev": "deployed"}
    assert document["flake"].endswith(f"&rev={revision}")
    assert document["hosts"][0]["revision"] == revision
    assert fleet.machine("dev").marker == "by reference"
    fleet.commit()


def test_a_machine_that_pulls_by_itself(fleet: Fleet) -> None:
    key = (fleet.lab.state / "home/.ssh/id_ed25519.pub").read_text().strip()
    switch = "nix-env -p /nix/var/nix/profiles/system --set $p && $p/bin/switch-to-configuration switch"
    pull = f"sh -c 'p=$(cat /var/lib/wanted) && {switch}'"
    access = f'nixherd.access = {{ kind = "trigger"; keys = ["{key}"]; trigger = "{pull}"; }};'
    fleet.broken_by("dev3", f"{{ {access} }}")
    fleet.deploy("dev3")
    with order(fleet, dev3='access = "trigger";'):
        fleet.change("dev3", "pulled")
        flake = f"{fleet.lab.places.fleet}#nixosConfigurations.dev3.config.system.build.toplevel"
        system = fleet.lab.run("nix", "build", "--no-link", "--print-out-paths", flake).output.split()[-1]
        fleet.on("dev3", "true")  # which leaves its key in that file
        address, options = report(fleet.lab, "dev3")["address"], f"-o UserKnownHostsFile={fleet.lab.state}/known-dev3"
        by_root = f"'ssh://abl030@{address}?remote-program=sudo%20nix-store'"
        copy = f'NIX_SSHOPTS="{options}" nix copy --no-check-sigs --to {by_root} {system}'
        fleet.lab.run("sh", "-c", copy)
        fleet.on("dev3", f"echo {system} | sudo tee /var/lib/wanted")
        ended, document = fleet.deploy("dev3")
        assert outcomes(document) == {"dev3": "deployed"}
        assert fleet.machine("dev3").current == system == document["hosts"][0]["current"]
        fleet.change("dev3", "not pulled")
        ended, document = fleet.deploy("dev3", check=False)
        assert (ended.status, outcomes(document)) == (1, {"dev3": "failed"})
        assert f"it ran its command, and runs {system}, not " in document["hosts"][0]["why"]
        fleet.on("dev3", "sudo rm /var/lib/wanted")
        ended, document = fleet.deploy("dev3", check=False)
        assert "its command failed: cat: /var/lib/wanted: No such file or directory" in document["hosts"][0]["why"]
    fleet.lab("break", "dev3")
    fleet.deploy("dev3")


def test_a_machine_without_a_boot_loader(fleet: Fleet) -> None:
    container = "boot.isContainer = true; boot.loader.systemd-boot.enable = lib.mkForce false;"
    fleet.broken_by("dev3", f"{{lib, ...}}: {{ {container} }}")
    before = fleet.machine("dev3")
    _ended, document = fleet.deploy("dev3")
    now = fleet.machine("dev3")
    assert outcomes(document) == {"dev3": "deployed"}
    assert (now.current == now.profile, now.default) == (True, before.default)
    fleet.lab("break", "dev3")
    fleet.deploy("dev3")


def test_a_guest_whose_address_is_known_needs_no_hypervisor(fleet: Fleet) -> None:
    """With the API there it is not asked, and without it all goes on: deploying, commands, secrets, reboots."""
    lab = fleet.lab
    fleet.change("dev", "without the hypervisor")
    deploy = "nixherd deploy dev --json 2>/dev/null"
    ended = lab.run("sh", "-c", deploy, check=False, env=NO_TOKEN)
    [row] = json.loads(ended.output)["hosts"]
    assert (ended.status, row["outcome"], "/nonexistent" in row["why"]) == (4, "unreachable", True)
    with order(fleet, dev=f'addresses = [ "192.0.2.1" "{report(lab, "dev")["address"]}" ];'):
        before = len(lab.requests())
        ended = lab.run("sh", "-c", deploy)
        assert outcomes(json.loads(ended.output)) == {"dev": "deployed"}
        ran = lab.pyinfra("-y", "inventory.py", "--limit", "dev", "exec", "--", "echo", "ran on $(hostname)")
        assert "ran on dev" in ran.output
        assert lab.requests()[before:] == [], "the hypervisor was not asked for anything"
        lab.pyinfra("-y", "inventory.py", "deploys/secrets_check.py", "--limit", "dev", env=NO_TOKEN)
        boot = fleet.on("dev", "cat /proc/sys/kernel/random/boot_id").output
        lab.run("nixherd", "reboot", "dev", "--force", env=NO_TOKEN)
        assert fleet.on("dev", "cat /proc/sys/kernel/random/boot_id").output != boot
    assert fleet.machine("dev").marker == "without the hypervisor"


@contextmanager
def without_agent(fleet: Fleet, host: str, vmid: int) -> Iterator[None]:
    """The VM has none in its configuration, which counts from its next start."""
    lab, guest = fleet.lab, f"/nodes/prom/qemu/{vmid}"

    def switched(agent: str) -> None:
        lab.api_task(f"{guest}/status/stop")
        # as soon as somebody looks at it, it is cleaned up, and its configuration is free
        until(lambda: lab.api(f"{guest}/status/current")["status"] == "stopped", 10, f"{host} is off")
        lab.api(f"{guest}/config", "PUT", agent=agent)
        lab.api_task(f"{guest}/status/start")
        until(lambda: fleet.on(host, "true", check=False).status == 0, 60, f"{host} answers")

    switched("0")
    try:
        yield
    finally:
        switched("1")


def test_a_guest_without_an_agent_is_found_where_its_card_was_seen(fleet: Fleet) -> None:
    """From here; by another machine of the fleet, in its neighbour table and in leases; by a search, if told to."""
    lab, address = fleet.lab, report(fleet.lab, "dev")["address"]
    definitions = lab.places.fleet / "vms/definitions.nix"
    original = definitions.read_text()
    mac = lab.api("/nodes/prom/qemu/110/config")["net0"].split("=")[1].split(",")[0]

    def ran(proxmox: str, *, is_known_here: bool = False) -> Ended:
        definitions.write_text(original)
        edit(definitions, 'node = "prom";', f'node = "prom"; {proxmox}')
        fleet.commit()
        if not is_known_here:
            lab.run("ip", "neighbour", "flush", "all")
        return lab.pyinfra("-y", "inventory.py", "--limit", "dev", "exec", "--", "hostname", check=False)

    def sees(card: str) -> None:
        """dev2 has nothing but a lease of the card, at an address where another machine is, and at the right one."""
        other = report(lab, "dev3")["address"]
        leases = "".join(f"0 {card} {each} dev *\\n" for each in (other, "10.77.0.1", address))
        write = f"sudo mkdir -p /var/lib/misc; printf '{leases}' | sudo tee /var/lib/misc/dnsmasq.leases"
        fleet.on("dev2", f"sudo ip neighbour flush all; {write}")

    with without_agent(fleet, "dev", 110):
        assert ran("", is_known_here=True).status == 0
        here = ran("")  # the lab's DHCP server runs where we do
        assert (here.status, "dev" in here.says("dev")) == (0, True), here.output
        file = "tr '\\0' '\\n' </proc/$(pgrep -xo dnsmasq)/cmdline | sed -n s/^--dhcp-leasefile=//p"
        lab.run("sh", "-c", f'test -s "$({file})" && : >"$({file})"')  # it knows them by heart
        # a late packet of its puts it into our table again
        nowhere = until(lambda: (done := ran("")).status and done, 60, "a machine that nobody knows")
        assert nowhere.status == 4
        assert "vm 110 (dev) has no guest agent" in nowhere.output
        fleet.on("dev2", f"exec 3<>/dev/tcp/{address}/22 || true")
        by_table = ran('neighbours = "dev2";')
        assert (by_table.status, "dev" in by_table.says("dev")) == (0, True), by_table.output
        sees(mac)
        login = "sudo journalctl -u sshd -o cat --no-pager | grep -c '^Accepted'"
        before = fleet.on("dev3", login).output
        by_lease = ran('neighbours = [ "dev2" ];')
        assert (by_lease.status, "dev" in by_lease.says("dev")) == (0, True), by_lease.output
        assert fleet.on("dev3", login).output.split() == [str(int(before) + 1)], "nobody was let in at the wrong one"
        network = ipaddress.ip_network(f"{address}/28", strict=False)
        searched = ran(f'discover = "{network}";')
        assert (searched.status, "dev" in searched.says("dev")) == (0, True), searched.output
        assert f"addresses in {network}, as the definitions say" in searched.output
        definitions.write_text(original)
        fleet.commit()
    fleet.on("dev2", "sudo rm /var/lib/misc/dnsmasq.leases")


def test_through_a_jump_host(fleet: Fleet) -> None:
    """Both connections, ours and Nix's, go the way that ssh_config says, or hosts.nix; the hop is known by the key in
    hosts.nix, whatever else stands there."""
    machine, hop = (report(fleet.lab, host)["address"] for host in ("dev", "dev2"))
    config = fleet.lab.state / "home/.ssh/config"

    def deployed(text: str) -> None:
        fleet.change("dev", text)
        cursor = "sudo journalctl -n 1 -o cat --show-cursor --no-pager | sed -n 's/^-- cursor: //p'"
        before = fleet.on("dev", cursor).output.strip()
        _ended, document = fleet.deploy("dev")
        assert outcomes(document) == {"dev": "deployed"}
        output = fleet.on("dev", f"sudo journalctl -u sshd --after-cursor '{before}' -o cat --no-pager").output
        lines = [line for line in output.splitlines() if line.startswith("Accepted publickey")]
        ways = {line.split(" from ")[1].split()[0] for line in lines[:-1]}  # the last one is ours, who read this
        assert ways == {hop}, output
        assert fleet.machine("dev").marker == text

    config.write_text(
        f"Host {machine}\n  ProxyJump abl030@dev2\n"
        f"Host dev2\n  HostName {hop}\n"
        "  UserKnownHostsFile /dev/null\n  StrictHostKeyChecking no\n  LogLevel ERROR\n  ForwardAgent yes\n"
    )
    try:
        deployed("through dev2")
    finally:
        config.unlink()
    with order(fleet, dev='jump = "dev2";'):
        deployed("through dev2, as the fleet says")
        file = fleet.lab.state / "ssh_config"
        ended = fleet.lab.run(
            "sh",
            "-c",
            f"nixherd ssh dev -- 'echo $SSH_CONNECTION' && nixherd ssh-config --find dev >{file} 2>/dev/null && "
            f"ssh -F {file} -o BatchMode=yes dev 'echo $SSH_CONNECTION'",
        )
        assert [line.split()[0] for line in ended.output.splitlines()[-2:]] == [hop, hop], ended.output
        assert _told(fleet, "dev", "--", "echo $SSH_CONNECTION").split()[0] == hop


def _told(fleet: Fleet, *words: str) -> str:
    """What a command of ours printed on a machine."""
    command = shlex.join(["nixherd", "exec", "--json", *words])
    [row] = json.loads(fleet.lab.run("sh", "-c", f"{command} 2>/dev/null").output)["hosts"]
    return str(row["stdout"])


def test_root_by_doas(fleet: Fleet) -> None:
    """Of a machine whose sudo goes: deployed, built there, asked; one that begins to ask for a password goes back."""
    both = "security.doas = { enable = true; wheelNeedsPassword = false; };"
    alone = f"{both} security.sudo.enable = lib.mkForce false;"

    def has(module: str, *words: str, outcome: str = "deployed") -> str:
        fleet.broken_by("dev3", f"{{lib, ...}}: {{ {module} }}")
        _ended, document = fleet.deploy("dev3", *words, check=False)
        assert outcomes(document) == {"dev3": outcome}, document
        return str(document["hosts"][0]["why"])

    has(both)
    with order(fleet, dev3='become = "doas";'):
        fleet.change("dev3", "by doas")
        has(alone)
        assert fleet.on("dev3", "sudo -n true", check=False).status != 0
        fleet.change("dev3", "by doas, built there")
        has(alone, "--data", "build_on=target")
        assert fleet.on("dev3", "cat /etc/marker").output == "by doas, built there"
        assert _told(fleet, "dev3", "--sudo", "--", "echo $(id -u) $HOME") == "0 /root"
        why = has(
            alone.replace("Password = false", "Password = true"), "--confirm-deadline", "6", outcome="rolled back"
        )
        assert "doas: Authentication required" in why
        has(both)
    fleet.lab("break", "dev3")
    fleet.deploy("dev3")
    with order(fleet, dev3='become = "doas";'):
        fleet.change("dev3", "there is none")
        ended, document = fleet.deploy("dev3", check=False)
    assert (ended.status, outcomes(document)) == (4, {"dev3": "failed"})
    assert "doas does not let abl030 be root without a password" in document["hosts"][0]["why"]
