"""Beyond one machine: Nix's own remote builders, a signed binary cache, and machines that pull from it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.machines.network import GATEWAY
from tests.integration.deployed import Fleet, order, outcomes
from tests.integration.lab_driver import Lab, until
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
        asked = log.read_text()
        assert f"GET /{name}.narinfo" in asked
        assert "GET /nar/" in asked
        fleet.change("dev", "past the cache")
        fleet.lab.run("nixherd", "publish", str(cache), "dev", "--key-file", str(key))
        fleet.deploy("dev", "--data", "substitute_on_destination=false")
        assert fleet.machine("dev").marker == "past the cache"
        assert log.read_text() == asked
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
        status, said = pulled()
        now = fleet.machine("dev")
        assert (status, now.marker, now.current, now.profile) == (0, "pulled", *[published["dev"]] * 2), said
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
        status, said = pulled()
        assert (status != 0, "why=own does not pass" in said) == (True, True), said
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
