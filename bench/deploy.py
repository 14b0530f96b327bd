"""Compares `nixherd deploy` with other tools on light hosts, with a changed and an unchanged fleet.

The others are the steps of `nixos-rebuild switch --target-host` in a loop over the hosts, deploy-rs on the same flake
(without the `nix flake check` that it would run first), an Ansible playbook with the same steps (raw tasks, because
NixOS has no Python by default), and a floor: one raw build, then `nix copy` and activation in parallel without any
check. Each deploys the same kind of change, a new one each time, and is judged by what the hosts run afterwards. The
hosts share the computer with the tools, so their cost is in every figure.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import plot
from bench.memory import peak_of
from bench.results import DIRECTORY, Comparison

COUNTS = (1, 10, 50)
EVALUATED = 100  # hosts
# ours/theirs for the largest number of hosts: with fewer, start-up dominates (0.8 s, and the lab's hosts evaluate in
# 0.02 s each where real ones take seconds), so the ratio is printed but not judged. Unchanged, the tool that does
# least wins; changed, no tool can do less than the floor.
LIMITS = {
    "unchanged": {"loop": 0.25, "deploy-rs": 0.5, "ansible": 0.33},
    "changed": {"floor": 1.3},
    "evaluation": {"nix": 1.2},
}
NO_LIMIT = float("inf")
LAB = Path(".bench/lab").absolute()
GATEWAY = "10.78.255.254"  # the controller for light hosts
CRATES = Path(".bench/crates/bin").absolute()
HOSTS = LAB / "light-hosts"  # one line each: NAME ADDRESS

SSH = "-o UserKnownHostsFile=$KNOWN -o StrictHostKeyChecking=yes -o BatchMode=yes -o LogLevel=ERROR"
TOPLEVEL = "nixosConfigurations.$name.config.system.build.toplevel"
SET = "nix-env -p /nix/var/nix/profiles/system --set"

OURS = "nixherd deploy 'light*' --json >/dev/null 2>&1"
# The steps of nixos-rebuild, which uses a connection master as well.
LOOP = f"""
T=$(mktemp -d); O="{SSH} -o ControlMaster=auto -o ControlPath=$T/%h -o ControlPersist=60"; export NIX_SSHOPTS="$O"
while read -r name address <&3; do
  p=$(nix build --print-out-paths --no-link "$FLEET#{TOPLEVEL}")
  nix-copy-closure --to root@$address $p 2>/dev/null
  ssh $O root@$address test -f $p/nixos-version
  ssh $O root@$address {SET} $p
  ssh $O root@$address test -d /run/systemd/system || true
  ssh $O root@$address env NIXOS_INSTALL_BOOTLOADER= $p/bin/switch-to-configuration switch 2>/dev/null
  ssh $O -O exit root@$address 2>/dev/null
done 3<"$HOSTS"
"""
FLOOR = f"""
export O="{SSH}"; export NIX_SSHOPTS="$O"
while read -r name address; do echo "$FLEET#{TOPLEVEL}"; done <"$HOSTS" |
  xargs nix build --no-link --print-out-paths >"$HOSTS.out"
paste "$HOSTS" "$HOSTS.out" | xargs -P 50 -n 3 sh -c '
  nix copy --no-check-sigs --to ssh://root@$2 $3 2>/dev/null
  ssh $O root@$2 "{SET} $3 && $3/bin/switch-to-configuration switch" 2>/dev/null' sh
"""
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - name: build
      delegate_to: localhost
      command: >-
        nix build --no-link --print-out-paths
        {{ flake }}#nixosConfigurations.{{ inventory_hostname }}.config.system.build.toplevel
      register: built
      changed_when: false
    - name: copy
      delegate_to: localhost
      command: nix copy --no-check-sigs --to ssh://root@{{ ansible_host }} {{ built.stdout }}
      changed_when: false
    - name: what runs
      raw: printf %s $(readlink -f /run/current-system)
      register: runs
      changed_when: false
    - name: profile
      raw: nix-env -p /nix/var/nix/profiles/system --set {{ built.stdout }}
      when: runs.stdout != built.stdout
    - name: activate
      raw: "{{ built.stdout }}/bin/switch-to-configuration switch"
      when: runs.stdout != built.stdout
"""
ANSIBLE = f"""
export ANSIBLE_PIPELINING=1 ANSIBLE_FORKS=50 ANSIBLE_SSH_ARGS="{SSH} -o ControlMaster=auto -o ControlPersist=60"
export NIX_SSHOPTS="{SSH}"
ansible-playbook -i "$HOSTS.ini" -e flake="$FLEET" "$HOSTS.yml" >/dev/null 2>&1
"""


DEPLOY_RS = """
deploy --skip-checks "$FLEET" >"$HOSTS.log" 2>&1
"""


def environment() -> dict[str, str]:
    return {**os.environ, "NIXHERD_LAB": str(LAB), "PATH": f"{CRATES}:{os.environ['PATH']}"}


def lab(*words: str) -> str:
    argv = [sys.executable, "-m", "lab", *words]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"lab {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def words_inside(script: str) -> list[str]:
    variables = {"HOSTS": str(HOSTS), "KNOWN": f"{HOSTS}.known"}
    path = f'PATH="{CRATES}:$PATH"\n'
    return ["run", "--", "env", *(f"{name}={value}" for name, value in variables.items()), "sh", "-c", path + script]


def inside(script: str) -> str:
    return lab(*words_inside(script))


def prepare(count: int) -> None:
    DIRECTORY.mkdir(exist_ok=True)
    lab("fleet", str(count), "--light")
    rows, known = [], []
    for number in range(1, count + 1):
        name, address = f"light{number:03}", f"10.78.0.{number + 1}"
        rows.append(f"{name} {address}")
        known.append(f"{address} {(LAB / 'light' / name / 'ssh_host_ed25519_key.pub').read_text().strip()}")
    HOSTS.write_text("\n".join(rows) + "\n")
    Path(f"{HOSTS}.known").write_text("\n".join(known) + "\n")
    lines = [f"{name} ansible_host={address} ansible_user=root" for name, address in map(str.split, rows)]
    Path(f"{HOSTS}.ini").write_text("\n".join(lines) + "\n")
    Path(f"{HOSTS}.yml").write_text(PLAYBOOK)
    if (CRATES / "deploy").exists():
        _prepare_deploy_rs(dict(row.split() for row in rows))


def _prepare_deploy_rs(addresses: dict[str, str]) -> None:
    """Add deploy-rs nodes and profiles to the lab's copy of the fleet."""
    fleet = LAB / "fleet"
    shutil.copy(CRATES / "activate", fleet / "activate")
    shutil.copy(Path(__file__).with_name("deploy_rs.nix"), fleet / "deploy-rs.nix")
    (fleet / "addresses.json").write_text(json.dumps(addresses))
    (fleet / "ssh-options.json").write_text(json.dumps(SSH.replace("$KNOWN", f"{HOSTS}.known").split()))
    text = (fleet / "flake.nix").read_text()
    if "deploy-rs.nix" not in text:
        mark = "    formatter.${system}"
        assert mark in text
        text = text.replace(mark, f"    deploy = import ./deploy-rs.nix {{inherit self pkgs;}};\n{mark}")
        (fleet / "flake.nix").write_text(text)
    inside("cd $FLEET && git add -A && git commit -q --no-verify --allow-empty -m deploy-rs")


def change(marker: str, module: str = '{ environment.etc.marker.text = "MARKER"; }') -> None:
    """Give the next system of all hosts this marker."""
    (LAB / "fleet/hosts/light/marker.nix").write_text(module.replace("MARKER", marker))
    inside(
        "cd $FLEET/hosts/light && "
        "{ grep -q marker.nix configuration.nix || "
        "sed -i 's|  system.state|  imports = [./marker.nix];\\n&|' configuration.nix; } && "
        "git add -A && git commit -q --no-verify --allow-empty -m change"
    )


def measured(script: str, marker: str) -> float:
    """Return the seconds that the script took; raises SystemExit unless every host has the marker then."""
    began = time.monotonic()
    inside(script)
    seconds = time.monotonic() - began
    require(marker, script)
    return seconds


def require(marker: str, script: str = "") -> None:
    """Raise SystemExit unless every host has the marker."""
    look = f"""xargs -P 16 -n 2 sh -c 'echo "$(ssh {SSH} root@$2 cat /etc/marker)"' sh <"$HOSTS" """
    if set(inside(look).split()) != {marker}:
        raise SystemExit(f"not every host has {marker} after: {script[:200]}")


def memory(script: str) -> float:
    """Return the script's peak memory in MiB, from a separate run because sampling costs time."""
    mib, status, output = peak_of([sys.executable, "-m", "lab", *words_inside(script)], environment())
    if status:
        raise SystemExit(f"{script[:200]}: {output}")
    return mib


def contenders() -> dict[str, str]:
    results = {}
    if (CRATES / "deploy").exists():
        results["deploy-rs"] = DEPLOY_RS  # before the loop: its wrapper profile would be a change for our tool
    else:
        print(f"deploy: {CRATES} has no deploy-rs (make bench puts it there): not compared", flush=True)
    results |= {"loop": LOOP, "floor": FLOOR}
    if (Path(sys.executable).parent / "ansible-playbook").exists():
        results["ansible"] = ANSIBLE
    else:
        print("deploy: ansible-core is not installed (pip install -e '.[bench]'): not compared", flush=True)
    return results


def compare(count: int, scenario: str, rounds: int) -> list[bool]:
    """Compare all tools over that many hosts; return whether each ratio of ours is within its limit."""
    scripts = {"ours": OURS, **contenders()}
    marker = f"start-{count}-{scenario}"
    change(marker)
    inside(OURS)
    times: dict[str, list[float]] = {name: [] for name in scripts}
    peaks: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, script in scripts.items():
            if scenario == "changed":
                marker = f"{count}-{number}-{name}"
                change(marker)
            if number < rounds:
                times[name].append(measured(script, marker))
            else:
                peaks[name] = memory(script)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    summary = {"count": count, "scenario": scenario, "seconds": medians, "mib": peaks}
    (DIRECTORY / f"deploy-{count}-{scenario}.json").write_text(json.dumps(summary, indent=2) + "\n")
    peak_text = ", ".join(f"{name} {mib:.0f}" for name, mib in peaks.items())
    print(f"deploy-{count}-{scenario}: MiB at most: {peak_text}", flush=True)
    limits = LIMITS[scenario] if count == COUNTS[-1] else {}
    return [
        Comparison(f"deploy-{count}-{scenario}-{name}", times["ours"], times[name], limits.get(name, NO_LIMIT)).report()
        for name in scripts
        if name != "ours"
    ]


def compare_evaluation(rounds: int) -> bool:
    """Compare a deployment's evaluation of a hundred hosts with the bare evaluation of their systems."""
    prepare(EVALUATED)
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        for label, seconds in times.items():
            seconds.append(float(lab("run", "--", sys.executable, "-m", "bench.evaluation", label)))
    limit = LIMITS["evaluation"]["nix"]
    return Comparison(f"deploy-{EVALUATED}-evaluation-nix", times["ours"], times["bare"], limit).report()


def main(rounds: int) -> int:
    good = []
    try:
        for count in COUNTS:
            prepare(count)
            for scenario in ("changed", "unchanged"):
                good += compare(count, scenario, rounds)
        good.append(compare_evaluation(rounds))
    finally:
        lab("down")
    plot.draw(DIRECTORY, COUNTS)
    return 0 if all(good) else 1
