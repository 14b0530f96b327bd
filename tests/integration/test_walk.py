"""A host's whole life, by the commands that the README has: new, provision, deploy, retire."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from nixherd.ssh.age import identity_of
from tests.integration.lab_driver import Lab, edit
from tests.integration.verified import report
from tests.nixherd.trust.secrets.repositories import contents

pytestmark = pytest.mark.slow


def git(lab: Lab, *words: str) -> list[str]:
    return lab.run("git", "-C", str(lab.places.fleet), *words).output.splitlines()


def nixherd(lab: Lab, *words: str) -> Any:
    """What a command says as JSON, the last that it says."""
    output = lab.run("sh", "-c", f"nixherd {shlex.join(words)} --json 2>/dev/null").output
    return json.loads(output[output.index("{") :])


def key_of(lab: Lab, host: str) -> Path:
    """A file with the age identity that is a machine's host key, read on the machine that hosts.nix pins."""
    expression = f"(import ./hosts.nix).{host}.publicKey"
    pinned = lab.run("sh", "-c", f"cd $FLEET && nix eval --impure --raw --expr {shlex.quote(expression)}").output
    address, known, found = report(lab, host)["address"], lab.state / f"known-{host}", lab.state / f"{host}.age"
    known.write_text(f"{address} {pinned}\n")
    options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    output = lab.run("ssh", *options, f"abl030@{address}", "sudo cat /etc/ssh/ssh_host_ed25519_key").output
    found.touch(0o600)
    found.write_text(identity_of(output.strip() + "\n") + "\n")
    return found


def decrypts(lab: Lab, key_file: Path) -> set[str]:
    """The secret files that an age identity opens, by sops itself."""
    alone = "HOME=/nowhere XDG_CONFIG_HOME=/nowhere SOPS_AGE_KEY_FILE=$0"
    each = f'{alone} sops decrypt "$file" >/dev/null 2>&1 && echo "$file"'
    script = f"cd $FLEET/secrets && for file in *; do {each}; done; true"
    return set(lab.run("sh", "-c", script, str(key_file)).output.split())


def test_new_provision_deploy_retire(lab: Lab) -> None:
    fleet, before = lab.places.fleet, contents(lab.places.fleet)
    made = nixherd(
        lab, "new", "web1", "--size", "small", "--pool", "nixherd", "--secret", "api_token", "--commit", "--yes"
    )
    vmid = made["vmid"]
    lab.run("nixherd", "provision", "web1")
    assert lab.boots(vmid) == ["disk", "installer", "disk"]
    assert "web1  revision only" in lab.run("nixherd", "deploy", "web1", "--table").output  # two commits later
    key_file = key_of(lab, "web1")
    assert decrypts(lab, key_file) == {"web1.yaml"}  # what it declares

    changes = lab.changes()
    retire = ("retire", "web1", "--destroy", str(vmid), "--stop", "--remove-secrets", "--yes")
    refused = lab.run("nixherd", *retire, check=False)
    assert refused.status == 3
    assert f"vm {vmid} (web1) is readonly in vms/definitions.nix; refusing to destroy it" in refused.output
    assert lab.changes() == changes
    definitions = fleet / "vms" / "definitions.nix"
    entry = definitions.read_text().partition("\n    web1 = {")[2].partition("};")[0]
    assert "      readonly = true;\n" in entry
    edit(definitions, entry, entry.replace("      readonly = true;\n", ""))
    git(lab, "commit", "-qam", "web1 may go")

    retired = nixherd(lab, *retire)
    [guest] = retired["guests"]
    assert (guest["fate"], guest["vmid"]) == ("destroyed", vmid)
    assert guest["backups"][0].startswith(f"local:backup/vzdump-qemu-{vmid}-")
    assert not [vm for vm in lab.api("/nodes/prom/qemu") if vm["vmid"] == vmid or vm.get("name") == "web1"]
    assert decrypts(lab, key_file) == set()
    assert git(lab, "status", "--porcelain") == []
    assert git(lab, "log", "-1", "--format=%s") == ["fleet: web1 retires"]
    assert not (lab.kept / "web1").exists()
    after = contents(fleet)
    assert {path for path in before if before[path] != after.get(path)} == set()
    assert after.keys() - before.keys() == {"docs/machines.md"}
    assert "web1" not in after["docs/machines.md"].decode()
    assert nixherd(lab, "secrets", "status")["drift"] is False
    assert nixherd(lab, *retire)["changed"] is False
