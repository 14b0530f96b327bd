"""`nixherd trust` in a fleet without hosts.nix: the key goes into nixherd.nix, which is made where it is missing."""

import os
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.ssh_keys import parse_public_key
from nixherd.cli import trust as module
from nixherd.cli.main import run
from nixherd.fleet.load import load_fleet
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.fleet.test_any_fleet import FLAKE, Counted, flake  # noqa: F401  (fixture)
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import git

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("any-fleet-trust")]
KEY = key("caddy").public
BARE = " ".join(KEY.split()[:2])
FINGERPRINT = parse_public_key(KEY).fingerprint


@pytest.fixture
def trust(
    flake: Counted,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "key_at", lambda *_: KEY)
    for words in (("user.name", "a"), ("user.email", "a@b")):
        git(flake.directory, "config", *words)
    git(flake.directory, "commit", "-qm", "the flake")
    return lambda *words: Ended(run(["--fleet", str(flake.directory), "trust", *words]), *capfd.readouterr())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "{\n  hosts = {\n    db.publicKey = PIN;\n  };\n}\n"),
        ("{ }\n", "{\n  hosts = {\n    db.publicKey = PIN;\n  };\n}\n"),
        ('{ hosts.web.port = 23; defaults.user = "al"; }', None),
        ("{\n  # ours\n  hosts = {\n    web.port = 23;\n  };\n}\n",
         "{\n  # ours\n  hosts = {\n    web.port = 23;\n    db = { publicKey = PIN; };\n  };\n}\n"),
        ("{\n  hosts.db = {\n    user = \"al\";\n  };\n}\n",
         "{\n  hosts.db = {\n    user = \"al\";\n    publicKey = PIN;\n  };\n}\n"),
    ],
)  # fmt: skip
def test_a_key_is_pinned_beside_the_flake(
    trust: Any,
    flake: Counted,  # noqa: F811
    before: str | None,
    after: str | None,
) -> None:
    if before is not None:
        flake.file("nixherd.nix", before)
        git(flake.directory, "commit", "-qm", "beside")
    head = git(flake.directory, "rev-parse", "HEAD").strip()
    planned = trust("db", "--fingerprint", FINGERPRINT, "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert git(flake.directory, "status", "--porcelain") == ""
    done = trust("db", "--fingerprint", FINGERPRINT, "--json")
    assert done.status == 0, done.err
    assert (done.json["changed"], done.json["files"]) == (True, ["nixherd.nix"])
    text = (flake.directory / "nixherd.nix").read_text()
    if after is not None:
        assert text == after.replace("PIN", f'"{BARE} root@db"')
    pinned = load_fleet(flake.directory).hosts["db"].public_key
    assert pinned is not None
    assert pinned.split()[:2] == KEY.split()[:2]
    assert git(flake.directory, "rev-list", "--count", f"{head}..HEAD").strip() == "1"
    assert git(flake.directory, "status", "--porcelain") == ""
    again = trust("db", "--fingerprint", FINGERPRINT)
    assert (again.status, "nixherd.nix pins a key of it" in again.err) == (2, True)


@pytest.mark.parametrize(
    "before",
    [
        "{ hosts = builtins.mapAttrs (_: port: { inherit port; }) { web = 23; }; }",
        "{ hosts = builtins.listToAttrs [ { name = \"db\"; value = { port = 23; }; } ]; }",
    ],
)  # fmt: skip
def test_what_is_computed_is_left_to_its_author(trust: Any, flake: Counted, before: str) -> None:  # noqa: F811
    flake.file("nixherd.nix", before)
    git(flake.directory, "commit", "-qm", "beside")
    refused = trust("db", "--fingerprint", FINGERPRINT)
    assert refused.status == 4, refused.err
    [line] = [line for line in refused.err.splitlines() if not line.startswith("warning: trace: ")]
    assert line.endswith("by hand")
    assert (flake.directory / "nixherd.nix").read_text() == before
    assert git(flake.directory, "status", "--porcelain") == ""


def test_a_key_that_the_configuration_names_is_known(trust: Any, flake: Counted) -> None:  # noqa: F811
    refused = trust("web", "--fingerprint", FINGERPRINT)
    assert refused.status == 2
    assert "pins a key of it" in refused.err
    assert not os.path.lexists(flake.directory / "nixherd.nix")
