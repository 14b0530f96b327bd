"""Wrong inputs under the real command line: one clear line per finding, a status that says so, and nothing changed."""

import hashlib
import json
import re
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.lab_driver import Ended, Lab, edit
from tests.integration.wrong_inputs import DISKO, FLAKE, WRONG, Wrong

NOTHING_CHANGED = (2, 3, 4)  # wrong input, refused, remote failure
# pyinfra's own words, and the narration that a VM is not there yet.
FRAME = re.compile(
    r"\s*|--> (Loading|Connecting|Preparing|Skipping|Beginning|Starting|Disconnecting|pyinfra error: No hosts rem).*"
    r"|\s+Loading: .*|\s*\[\S+\]\s+(Connected|Ready: .*|Error: executed 0 commands|absent: vm 110 .*)"
)


@pytest.fixture
def untouched(lab: Lab) -> Iterator[Lab]:
    """The fleet's copy is as it was afterwards, and so it should have stayed but for what the test itself edits."""
    yield lab
    for command in (["checkout", "--quiet", "."], ["clean", "-fdq"]):
        subprocess.run(["git", "-C", str(lab.state / "fleet"), *command], check=True)


@pytest.mark.parametrize("wrong", [pytest.param(wrong, id=wrong.name) for wrong in WRONG])
def test_says_what_where_and_what_to_do_and_changes_nothing(untouched: Lab, wrong: Wrong, tmp_path: Path) -> None:
    lab, environment = untouched, dict(wrong.environment)
    if (
        patch := wrong.patch(json.loads((lab.state / "state.json").read_text()))
        if callable(wrong.patch)
        else wrong.patch
    ):
        lab("reset", "--patch", json.dumps(patch))
    for file, old, new in wrong.edits:
        edit(lab.state / "fleet" / file, old, new)
    for file in wrong.files:
        (lab.state / "fleet" / file).write_text("{ }\n")
    if wrong.token is not None:
        token = tmp_path / "token"
        secret = lab.places.token_line().rpartition("=")[2]
        token.write_text(filled_in(wrong.token, {"@FINGERPRINT": fingerprint(lab), "@SECRET": secret}))
        token.chmod(wrong.mode)
        environment["PROXMOX_TOKEN_FILE"] = str(token)
    before = _fleet(lab)
    data = [word for item in wrong.data for word in ("--data", item)]
    ended = lab.pyinfra("-y", *data, "inventory.py", *wrong.command, check=False, env=environment)
    places = {"@FLEET": lab.state / "fleet", "@HOME": lab.state / "home", "@TOKEN": tmp_path / "token"}
    assert told(ended) == [filled_in(line, {**places, "@FINGERPRINT": fingerprint(lab)}) for line in wrong.says]
    assert ended.status in NOTHING_CHANGED
    assert lab.changes() == []
    # the lock file by which runs tell the leftovers of killed ones stays
    assert all(path.is_dir() or path.name == "lock" for path in (lab.state / "home").glob(".local/state/**/*"))
    assert _fleet(lab) == before


def test_every_finding_is_told_at_once_and_a_plan_that_is_refused_fails(untouched: Lab) -> None:
    untouched(
        "reset",
        "--patch",
        '{"vms": {"9002": {"config": {"bios": "seabios"}}}, "storages": {"nvmeprom": {"avail": 9663676416}}}',
    )
    edit(untouched.state / "fleet" / DISKO, "/dev/sda", "/dev/vda")
    edit(untouched.state / "fleet" / FLAKE, "kexec-installer = import", "installer = import")
    planned = untouched.pyinfra("--dry", "inventory.py", "deploys/provision.py", "--limit", "dev", check=False)
    assert [line[:40] for line in told(planned)] == [
        "dev: its configuration installs systemd-",
        "dev: disko formats /dev/vda, but the dis",
        "storage nvmeprom on prom has 9.0 GiB fre",
        f"{untouched.state}/fleet/flake.nix: it has no packages"[:40],
    ]
    assert planned.status == 2


def test_what_stops_every_host_is_told_once(untouched: Lab) -> None:
    words = ("-y", "inventory.py", "deploys/provision.py", "--limit", "managed")
    ended = untouched.pyinfra(*words, check=False, env={"PROXMOX_TOKEN_FILE": "/nowhere"})
    [reason] = [line for line in told(ended) if line.startswith("token file /nowhere: missing; make an API token")]
    others = [line for line in told(ended) if line != reason]
    assert len(others) == 3
    assert all(line.startswith("not connected, for the same reason as dev") for line in others)
    assert ended.status == 4


def test_what_is_wrong_with_one_host_leaves_the_others_going(untouched: Lab) -> None:
    edit(untouched.state / "fleet/hosts/dev2/configuration.nix", "services.", "nosuch = 1 + yes; services.")
    words = ("--dry", "inventory.py", "deploys/provision.py", "--limit", "dev", "--limit", "dev2")
    planned = untouched.pyinfra(*words, check=False)
    assert "hosts/dev2/configuration.nix:12:16: undefined variable 'yes'; correct the Nix there" in planned.says("dev2")
    assert "clone template 9002 to vm 110 (dev) on nvmeprom" in planned.says("dev")
    assert planned.status == 1


def told(ended: Ended) -> list[str]:
    """What the operator is told, pyinfra's own words aside."""
    lines = [line for line in ended.output.splitlines() if not FRAME.fullmatch(line)]
    return [re.sub(r"^\s*\[\S+\]\s+", "", line) for line in lines]


def filled_in(line: str, places: Mapping[str, object]) -> str:
    for name, value in places.items():
        line = line.replace(name, str(value))
    return line


def fingerprint(lab: Lab) -> str:
    """Of the certificate that the lab's API shows."""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(lab.places.certificate.read_text())).hexdigest().upper()
    return ":".join(re.findall("..", digest))


def _fleet(lab: Lab) -> str:
    git = ["git", "-C", str(lab.state / "fleet")]
    return "".join(
        subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain"], ["diff"])
    )
