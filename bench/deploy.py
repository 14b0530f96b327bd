"""A fleet deployed, changed and unchanged: `fleetwright deploy` beside what else would do it, on light hosts.

Beside it stand the steps of `nixos-rebuild switch --target-host` in a loop over the hosts, a playbook of Ansible with
the same steps, and a floor: one raw build, then `nix copy` and activation side by side, without a question asked.
Ansible's tasks there are raw ones, since NixOS has no Python by itself. Every contender deploys the same change, each
time another one, and is judged by what the hosts run afterwards.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.results import Comparison

COUNTS = (1, 10, 50)
# ours/theirs; one host alone is told and not judged: starting is most of it
LIMITS = {"loop": 0.25, "ansible": 0.33, "floor": 1.3}
LAB = Path(".bench/lab").absolute()
HOSTS = LAB / "light-hosts"  # NAME ADDRESS, a line each

SSH = "-o UserKnownHostsFile=$KNOWN -o StrictHostKeyChecking=yes -o BatchMode=yes -o LogLevel=ERROR"
TOPLEVEL = "nixosConfigurations.$name.config.system.build.toplevel"
SET = "nix-env -p /nix/var/nix/profiles/system --set"

OURS = "fleetwright deploy 'light*' --json >/dev/null 2>&1"
# What nixos-rebuild does, step by step; it has a connection master of its own as well.
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


def lab(*words: str) -> str:
    environment = {**os.environ, "FLEETWRIGHT_LAB": str(LAB)}
    done = subprocess.run([sys.executable, "-m", "lab", *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"lab {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def inside(script: str) -> str:
    given = {"HOSTS": str(HOSTS), "KNOWN": f"{HOSTS}.known"}
    return lab("run", "--", "env", *(f"{name}={value}" for name, value in given.items()), "sh", "-c", script)


def prepare(count: int) -> None:
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


def change(text: str) -> None:
    """The next system of all hosts has this marker."""
    module = f'{{ environment.etc.marker.text = "{text}"; }}'
    inside(
        f"cd $FLEET/hosts/light && printf '%s' '{module}' >marker.nix && "
        "{ grep -q marker.nix configuration.nix || "
        "sed -i 's|  system.state|  imports = [./marker.nix];\\n&|' configuration.nix; } && "
        "git add -A && git commit -q --no-verify --allow-empty -m change"
    )


def measured(script: str, marker: str) -> float:
    """Seconds that it took; SystemExit unless every host has the marker then."""
    began = time.monotonic()
    inside(script)
    seconds = time.monotonic() - began
    look = f'while read -r name address <&3; do ssh {SSH} root@$address cat /etc/marker; echo; done 3<"$HOSTS"'
    if set(inside(look).split()) != {marker}:
        raise SystemExit(f"not every host has {marker} after: {script[:200]}")
    return seconds


def contenders() -> dict[str, str]:
    found = {"loop": LOOP, "floor": FLOOR}
    if (Path(sys.executable).parent / "ansible-playbook").exists():
        found["ansible"] = ANSIBLE
    else:
        print("deploy: ansible-core is not installed (pip install -e '.[bench]'): not compared", flush=True)
    return found


def main(rounds: int) -> int:
    good, number = [], 0
    others = contenders()
    try:
        for count in COUNTS:
            prepare(count)
            for scenario in ("changed", "unchanged"):
                times: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
                change(f"start-{count}-{scenario}")
                inside(OURS)
                marker = f"start-{count}-{scenario}"
                for _ in range(rounds):
                    for name, script in {"ours": OURS, **others}.items():
                        if scenario == "changed":
                            number += 1
                            marker = f"m{number}"
                            change(marker)
                        times[name].append(measured(script, marker))
                for name in others:
                    limit = LIMITS[name] if count > 1 else float("inf")
                    comparison = Comparison(f"deploy-{count}-{scenario}-{name}", times["ours"], times[name], limit)
                    good.append(comparison.report())
    finally:
        lab("down")
    return 0 if all(good) else 1
