"""What each page takes for granted in the lab, in the order in which the pages are read.

They share one lab: the README makes the machines `dev`, `dev2` and `dev3`, fleet/README.md `web01`. The last two pages
begin with another fleet, as it ships, and without machines.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from lab.control import PORT
from lab.fleet_copy import fingerprint
from lab.machines.network import GATEWAY
from lab.start import IMAGE, POOL
from tests.gate_programs import programs, stand_in
from tests.integration.lab_driver import CHECKOUT, Lab
from tests.integration.reading import AS_COMMITTED, Scene
from tests.integration.strangers import make_debian
from tests.integration.test_template import without_a_template

LEAVE = [("# ", "exit\n")]
LEAVE_THERE = [("$ ", "exit\n")]
PURPOSE = [("What it is for: ", "a server\n")]
OTHERS = 1  # the status of what is asked of all machines: most of the reference fleet's are not in the lab
REFUSED = 3
NOT_A_HOST = 2  # of the fleet: the computer with the lab on it


# What people run beside the tests, as the other of the README's two commands: it takes a minute, has a lab of its own,
# and what it goes through is in the tests of a machine's whole way, in this lab.
APART = frozenset({"make demo"})
# Commands that take long, by page: the page where the identical line is run.
SEEN = {
    "docs/provisioning.md": {"nixherd provision web01": "README.md"},
    "docs/secrets.md": {"nixherd provision dev": "README.md"},
}


def may_change(host: str) -> str:
    """What the text tells people to do by hand: the guest is not readonly any more."""
    return f"""
      sed -i '/{host} = {{/,/}};/ {{/readonly = true;/d}}' "$FLEET"/vms/definitions.nix
      git -C "$FLEET" commit --quiet --all --allow-empty --message '{host} may be changed'
    """


def _readme(_: Lab) -> Scene:
    return Scene(
        seen=APART,
        answers={"make lab up HOSTS=3 && make lab shell": LEAVE, "nixherd ssh dev": LEAVE_THERE},
        statuses={
            "nixherd deploy dev dev2 dev3": 1,
            "nixherd retire web01 --destroy 100 --stop": REFUSED,
            "nixherd check --without statix": 1,
            "nixherd lock update --merge-into main": 5,
        },
        meanwhile={"nixherd lock update --merge-into main": "export NIX_CONFIG='download-attempts = 1'"},
    )


def _fleet_readme(lab: Lab) -> Scene:
    return Scene(
        before=f'{AS_COMMITTED}; cd "$FLEET"; {editor(lab)}',
        answers={"nixherd --fleet . new web01 --size small --pool nixherd --secret api_token": PURPOSE},
    )


def _everyday(_: Lab) -> Scene:
    return Scene(
        before=f"{AS_COMMITTED}; nixherd exec dev2 --sudo -- 'systemd-run --unit broken false'",
        statuses={"nixherd exec dev -- ls '/a directory'": 1},
    )


def _status(_: Lab) -> Scene:
    return Scene(before=AS_COMMITTED, statuses={"nixherd status dev dev2": OTHERS})  # they have no backups


def _monitoring(_: Lab) -> Scene:
    return Scene(
        before=AS_COMMITTED,
        values={"/var/lib/prometheus/node-exporter/": "~/"},
        statuses={
            f"nixherd {words}": OTHERS for words in ("status --json > ~/status.json", "drift --from ~/status.json")
        },
    )


def _deploying(lab: Lab) -> Scene:
    everyone = ("nixherd plan", "nixherd plan --dry-copy", "nixherd reboot")
    return Scene(
        before=AS_COMMITTED,
        values={"github:owner/fleet": f"git+file://{lab.places.fleet}"},
        statuses={
            **dict.fromkeys(everyone, OTHERS),
            "nixherd deploy --local": NOT_A_HOST,
        },
    )


def _provisioning(lab: Lab) -> Scene:
    install = "nixherd install metal --address 203.0.113.7 --host-key 'ssh-ed25519 AAAA…' --user root"
    address, key = make_debian(lab, 120, "metal", pool=POOL)
    return Scene(
        before=f"{AS_COMMITTED}; nixherd deploy dev",
        meanwhile={install: "nixherd new metal --no-vm --device /dev/sda --yes"},
        values={"203.0.113.7": address, "ssh-ed25519 AAAA…": key, "--user root": "--user abl030"},
        seen=SEEN["docs/provisioning.md"],
    )


def _new_host(_: Lab) -> Scene:
    return Scene(before=AS_COMMITTED, answers={"nixherd new web01": PURPOSE})


def _secrets(_: Lab) -> Scene:
    return Scene(before=f"{AS_COMMITTED}; nixherd deploy dev", seen=SEEN["docs/secrets.md"])


def _vm(_: Lab) -> Scene:
    destroy = "nixherd vm destroy dev 110 --stop --discard scsi1 --discard snapshot:clean --dry-run"
    return Scene(
        before=AS_COMMITTED + may_change("dev"),
        meanwhile={destroy: "nixherd vm add-disk dev scsi1 1G; nixherd vm snapshot dev clean"},
    )


def _flake_alone(nixherd: str) -> str:
    """A copy of the fleet whose hosts.nix is a file of its own."""
    return f"""
      rm -rf ~/src; mkdir ~/src; cp -r "$FLEET" ~/src/my-fleet; cd ~/src/my-fleet; unset FLEET
      git reset -q --hard; git clean -fdq
      echo '{nixherd}' >nixherd.nix; git add -A; git commit -qm 'by the flake alone'
    """


def _any_fleet(_: Lab) -> Scene:
    keys = "builtins.mapAttrs (_: host: { inherit (host) publicKey; }) (import ./hosts.nix)"
    return Scene(before=_flake_alone(f"{{ useHostsFile = false; hosts = {keys}; }}"))


def _adopting(_: Lab) -> Scene:
    return Scene(
        before=_flake_alone("{ useHostsFile = false; }"),
        meanwhile={
            "nixherd vm import 104": "sed -i '/doc1 = {/,/^    };/d' vms/definitions.nix",
            "nixherd vm adopt doc1 104 --dry-run": "git checkout -q vms/definitions.nix",
        },
    )


# Prints the certificate as Proxmox VE's does, as far as people are told to look at it.
_PVENODE = """#!/bin/sh
[ "$*" = "cert info" ] && openssl x509 -in "$CERTIFICATE" -noout -fingerprint -sha256
"""
# Keeps its arguments, a line each time; test_docs.py compares the rights that they grant with the lab's.
_PVEUM = """#!/bin/sh
printf '%s\\t' "$@" >>"$PVEUM_LOG"
echo >>"$PVEUM_LOG"
"""


def editor(lab: Lab) -> str:
    """Have an editor that sets the token of a secret file."""
    program = lab.state / "editor"
    program.write_text("#!/bin/sh\nsed -i 's/^api_token: .*/api_token: mine/' \"$1\"\n")
    program.chmod(0o755)
    return f"export EDITOR={program}; "


def home_of_ones_own(lab: Lab) -> str:
    """Be somebody with SSH keys alone, where `fleet` is the directory that ships."""
    return f"""
      cd {lab.state}; rm -rf a-home; mkdir -m 700 a-home; cp -r "$HOME"/.ssh "$HOME"/.gitconfig a-home
      export HOME=$PWD/a-home; unset SOPS_AGE_KEY_FILE; {editor(lab)}
    """


def another(lab: Lab) -> Path:
    """The place of another lab."""
    return lab.state / "another"


def on_a_node(lab: Lab) -> str:
    """Have the programs of a node at hand, which the lab has none of; what `pveum` was given is in `pveum.log`."""
    programs = lab.state / "of-a-node"
    programs.mkdir(exist_ok=True)
    for name, text in {"pvenode": _PVENODE, "pveum": _PVEUM}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (lab.state / "pveum.log").write_text("")
    exports = {"PATH": f"{programs}:$PATH", "CERTIFICATE": lab.places.certificate, "PVEUM_LOG": lab.state / "pveum.log"}
    return "".join(f'export {name}="{value}"; ' for name, value in exports.items())


def _plain(_: Lab) -> Scene:
    return Scene(before=AS_COMMITTED)


def _check(lab: Lab) -> Scene:
    path = f"{stand_in(lab.state / 'statix')}:{programs()}:$PATH"
    formatted = "nixherd check --fix --without flake --without builds; git -C $FLEET commit -qam formatted"
    return Scene(
        before=f'{AS_COMMITTED}; export PATH="{path}"; {formatted}',  # what `lab break` writes is not
        meanwhile={"nixherd fmt": 'cd "$FLEET"'},
    )


_INPUTS = """
rm -rf ~/ci*; mkdir ~/ci-inputs; export FLEET=~/ci
names='nixpkgs disko home-manager hyprland stylix'
publish() { echo "{ outputs = _: { value = $2; }; }" >flake.nix; git add flake.nix; git commit -qm "$1"; }
for name in $names; do (git init -q -b main ~/ci-inputs/$name; cd ~/ci-inputs/$name; publish one 1); done
git init -q --bare ~/ci.git; git init -q -b main ~/ci; cd ~/ci
{
  echo '{ inputs = {'
  for name in $names; do echo "$name.url = \\"git+file://$HOME/ci-inputs/$name\\";"; done
  echo '}; outputs = inputs: { checks.x86_64-linux.all = derivation {'
  echo 'name = "all"; system = "x86_64-linux"; builder = "/bin/sh"; args = ["-c" "echo >$out"];'
  echo 'values = map (input: input.value) (builtins.attrValues (removeAttrs inputs ["self"])); }; }; }'
} >flake.nix
git add flake.nix; nix flake lock; git add flake.lock; git commit -qm 'the fleet'
git remote add origin ~/ci.git; git push -q -u origin main
for name in nixpkgs home-manager hyprland stylix; do (cd ~/ci-inputs/$name; publish two 2); done
(cd ~/ci-inputs/disko; publish two '{ }.fetchurlBoot')
"""
"""a fleet with an update that does not evaluate"""


def _ci(_: Lab) -> Scene:
    command = "nixherd lock update --merge-into main --push --group desktop=hyprland,stylix"
    # The gate of the page has linters, which the lab has not.
    return Scene(before=_INPUTS, statuses={command: 1}, values={"main --push": "main --push --gate 'nix flake check'"})


def _scale(_: Lab) -> Scene:
    builders = "builders = ssh-ng://build@big x86_64-linux - 16 ; ssh-ng://build@arm aarch64-linux - 8"
    return Scene(
        before=AS_COMMITTED,
        values={"/srv/cache": "~/cache"},
        statuses={f"NIX_CONFIG='{builders}' nixherd deploy": OTHERS},
    )


def _upgrading(_: Lab) -> Scene:
    return Scene(before=AS_COMMITTED, statuses={"nixherd plan": OTHERS})


def _proxmox(lab: Lab) -> Scene:
    return Scene(
        before=f"{AS_COMMITTED}; {on_a_node(lab)} unset PROXMOX_TOKEN_FILE; cd ~; "
        f"echo '{lab.places.token_line()}' >secret; touch debian-13.qcow2",
        values={
            "192.168.1.12": f"{GATEWAY}:{PORT}",
            "AB:CD:…": fingerprint(lab.places),
            "/etc/pve/local/pve-ssl.pem": str(lab.places.certificate),
            "local:import/debian-13.qcow2": IMAGE,
            "https://…/debian-13.qcow2 --checksum SHA256": f"https://example.org/debian-13.qcow2 --checksum {'0' * 64}",
        },
        answers={"nixherd token add": [("): ", f"{lab.places.token_line()}\n")]},
    )


def _retiring(_: Lab) -> Scene:
    return Scene(before=AS_COMMITTED + may_change("web01"))


def _lab(lab: Lab) -> Scene:
    return Scene(before=f"export NIXHERD_LAB={another(lab)}; mkdir {another(lab)}", seen=APART, outside=True)


def as_shipped(lab: Lab) -> str:
    """Begin anew, with the secrets that the fleet ships with: nobody has their keys."""
    lab("reset")
    secrets = lab.places.fleet / "secrets"
    shutil.rmtree(secrets)
    shutil.copytree(CHECKOUT / "fleet" / "secrets", secrets)
    return home_of_ones_own(lab)


def _taking_over(lab: Lab) -> Scene:
    return Scene(before=as_shipped(lab))


def _evening(lab: Lab) -> Scene:
    """From an empty directory, on a node without a template; the flake's inputs and the image are the lab's."""
    without_a_template(lab)
    inputs = lab.state / "inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    shutil.copytree(lab.state / "fleet-inputs/nixpkgs", inputs / "nixpkgs")
    for name in ("disko", "sops-nix", "nixos-images"):
        shutil.copytree(CHECKOUT / "lab/inputs" / name, inputs / name)
    overrides = " ".join(f"--override-input {path.name} path:{path}" for path in sorted(inputs.iterdir()))
    add = "token add --endpoint 192.0.2.10 --fingerprint AB:CD:…"
    token = [("): ", f"{lab.places.token_line()}\n")]
    return Scene(
        before=home_of_ones_own(lab) + "mkdir ~/fleet; cd ~/fleet; unset PROXMOX_TOKEN_FILE FLEET",
        meanwhile={
            "nixherd vm doctor": "git init -q && git add . && "
            f"nix flake lock {overrides} && git add flake.lock && git commit -qm 'the fleet'",
            "nixherd retire db1 --destroy 102 --stop": may_change("db1").replace('"$FLEET"', "."),
        },
        values={
            "192.0.2.10": f"{GATEWAY}:{PORT}",
            "AB:CD:…": fingerprint(lab.places),
            "--from ~/debian.qcow2": f"--image {IMAGE}",
        },
        statuses={"nixherd vm doctor": 1},  # the template is made afterwards
        answers={
            f"nixherd {add}": token,
            "nixherd init --host web1 --vm": [
                ("The storage for their disks: ", "nvmeprom\n"),
                ("The pool that they are made in: ", f"{POOL}\n"),
            ],
            f"nixherd --token-file ~/.config/nixherd/template-token {add}": token,
            "nixherd new web2 --secret api_token --commit": PURPOSE,
            "nixherd new db1 --memory 4096 --commit": PURPOSE,
        },
    )


SCENES: dict[str, Callable[[Lab], Scene]] = {
    "README.md": _readme,
    "docs/new-host.md": _new_host,
    "fleet/README.md": _fleet_readme,
    "docs/everyday.md": _everyday,
    "docs/deploying.md": _deploying,
    "docs/status.md": _status,
    "docs/history.md": _plain,
    "docs/monitoring.md": _monitoring,
    "docs/provisioning.md": _provisioning,
    "docs/secrets.md": _secrets,
    "docs/any-fleet.md": _any_fleet,
    "docs/adopting.md": _adopting,
    "docs/check.md": _check,
    "docs/ci.md": _ci,
    "docs/operations.md": _plain,
    "docs/scale.md": _scale,
    "docs/upgrading.md": _upgrading,
    "docs/guard.md": _plain,
    "docs/proxmox.md": _proxmox,
    "docs/vm.md": _vm,
    "docs/retiring.md": _retiring,
    "docs/lab.md": _lab,
    "docs/taking-over.md": _taking_over,
    "docs/evening.md": _evening,
}
