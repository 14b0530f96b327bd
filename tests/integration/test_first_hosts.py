"""The first, second and third host of a new fleet: each decrypts what its configuration declares, and no more.

Judged past the code that did it: on the machines, with the keys that they have.
"""

import base64
import json
import shlex
from pathlib import Path

import pytest

from tests.integration.lab_driver import Lab
from tests.integration.verified import ssh

pytestmark = pytest.mark.slow

ENROLL, PROVISION = "deploys/enroll.py", "deploys/provision.py"
HOSTS = ("dev", "dev2", "dev3")
SHARED = {"common.yaml", "common.env"}
DECLARED = {
    "dev": {*SHARED, "dev.yaml"},
    "dev2": {*SHARED, "dev2.yaml"},
    "dev3": {"dev3.yaml"},  # of its own alone, and neither it nor a rule is there yet
}
SECRETS = {
    "dev": {"api_token", "common_env", "wifi/password"},
    "dev2": {"api_token", "common_env", "wifi/password"},
    "dev3": {"api_token"},
}
FILES = sorted(set.union(*DECLARED.values()))
# Which of the files on stdin, as lines `NAME BASE64`, the host's own key opens: sops-nix converts it like that.
OPENS = """
set -eu
umask 077
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 "$(ls /nix/store/*/bin/ssh_to_age.py | head -n 1)" /etc/ssh/ssh_host_ed25519_key >"$place/identity"
while read -r name content; do
  printf %s "$content" | base64 -d >"$place/$name"
  if SOPS_AGE_KEY_FILE="$place/identity" HOME="$place" sops decrypt "$place/$name" >"$place/plain" 2>/dev/null; then
    [ -s "$place/plain" ] && echo "opens $name"
  fi
done
"""


def new_fleet(lab: Lab) -> None:
    """Nobody is a recipient but the operator; there is a rule for all hosts, and one for each but the third."""
    fleet = lab.places.fleet
    config = fleet / "secrets" / ".sops.yaml"
    operator = next(line.split()[2] for line in config.read_text().splitlines() if line.strip().startswith("- &abl030"))
    rules = [(r"^common\.(yaml|env)$", "shared"), (r"^dev\.yaml$", "dev's"), (r"^dev2\.yaml$", "dev2's")]
    entries = "".join(
        f"  # {name}\n  - path_regex: {pattern}\n    key_groups:\n      - age:\n          - *me\n"
        for pattern, name in rules
    )
    config.write_text(f"keys:\n  - &me {operator}\ncreation_rules:\n{entries}")
    for path in sorted((fleet / "secrets").iterdir()):
        if path.name not in {*FILES, ".sops.yaml"} - {"dev3.yaml"}:
            path.unlink()
    configuration = fleet / "hosts/dev3/configuration.nix"
    lines = configuration.read_text().splitlines(keepends=True)
    begin = next(at for at, line in enumerate(lines) if 'sops.secrets."wifi/password"' in line)
    configuration.write_text("".join(lines[:begin]) + _without_common(lines[begin + 1 :]))
    commit = "git add -A && git commit -qm 'a new fleet' && nixherd secrets apply >/dev/null"
    lab.run("sh", "-c", f"cd {shlex.quote(str(fleet))} && {commit}")


def _without_common(lines: list[str]) -> str:
    """The rest without `sops.secrets.common_env = {…};`."""
    begin = next(at for at, line in enumerate(lines) if "sops.secrets.common_env" in line)
    end = next(at for at in range(begin, len(lines)) if lines[at].rstrip() == "  };")
    return "".join([*lines[:begin], *lines[end + 1 :]])


def enroll(lab: Lab, host: str, *data: str) -> list[str]:
    words = [word for each in data for word in ("--data", each)]
    ended = lab.pyinfra("-y", "inventory.py", ENROLL, "--limit", host, *words, check=False)
    return [str(ended.status), *ended.says(host)]


def opened(lab: Lab, host: str) -> set[str]:
    """The secret files that a machine can open with its host key, tried there."""
    secrets = lab.places.fleet / "secrets"
    script = f"echo {shlex.quote(_lines(secrets))} | sudo -n sh -c {shlex.quote(OPENS)}"
    return {line.split()[1] for line in ssh(lab, host, "abl030", script).splitlines() if line.startswith("opens ")}


def _lines(secrets: Path) -> str:
    return "\n".join(f"{name} {base64.b64encode((secrets / name).read_bytes()).decode()}" for name in FILES)


def test_each_decrypts_what_it_declares_and_nothing_of_the_others(lab: Lab) -> None:
    new_fleet(lab)
    for host in HOSTS[:2]:
        status, *lines = enroll(lab, host)
        assert status == "0", lines
    status, *lines = enroll(lab, "dev3")
    assert status != "0"
    assert "dev3: secrets/dev3.yaml: no rule of secrets/.sops.yaml is for it; add `- " in " ".join(lines)
    status, *lines = enroll(lab, "dev3", "secrets_create=True")
    assert status == "0", lines
    files = {
        row["file"].removeprefix("secrets/"): set(row["recipients"])
        for row in json.loads(lab.run("nixherd", "secrets", "status", "--json").output)["files"]
    }
    assert files == {name: {"me", *(host for host in HOSTS if name in DECLARED[host])} for name in FILES}

    limits = [word for host in HOSTS for word in ("--limit", host)]
    lab.pyinfra("-y", "inventory.py", PROVISION, *limits)
    for host in HOSTS:
        listed = ssh(lab, host, "abl030", "cd /run/secrets && sudo -n find -L . -type f -size +0").split()
        assert {path.removeprefix("./") for path in listed} == SECRETS[host], host
        assert opened(lab, host) == DECLARED[host], host
