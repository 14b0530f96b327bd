"""Key groups and their thresholds: what a rule says is reached, which `sops updatekeys` alone does not do."""

import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nixherd.trust.secrets.files import read_file
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import contents, git, nobodys, repository

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("kinds")]

A, B, C = ("admin",), ("doc1",), ("igp",)
STEPS: tuple[tuple[tuple[tuple[str, ...], ...], int, str], ...] = (
    ((A, B, C), 2, "key groups admin → admin | – | –, takes 1 of 1 → 2 of 3 key groups"),
    ((A, B, C), 3, "takes 2 of 3 → 3 of 3 key groups"),
    ((A, B, C), 2, "takes 3 of 3 → 2 of 3 key groups"),
    ((B, (*A, *C)), 2, "key groups admin | doc1 | igp → doc1 | admin, igp, takes 2 of 3 → 2 of 2 key groups"),
    (((*A, *C), B), 2, "key groups doc1 | admin, igp → admin, igp | doc1"),
    (((*B, *C), A), 2, "key groups admin, igp | doc1 → doc1, igp | admin"),
    (((*A, *B, *C),), 1, "key groups doc1, igp | admin → admin, doc1, igp, takes 2 of 2 → 1 of 1 key groups"),
)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nobodys(monkeypatch, tmp_path)
    identity = tmp_path / "all.age"
    identity.touch(0o600)
    identity.write_text("".join(f"{key(name).identity}\n" for name in ("admin", "doc1", "igp")))
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(identity))
    return repository(tmp_path / "fleet")


def rule(fleet: Path, body: str) -> None:
    """Have the rule of dev.yaml say something else."""
    path = fleet / "secrets/.sops.yaml"
    head, _, rest = path.read_text().partition("  - path_regex: ^dev\\.yaml$\n")
    tail = rest[rest.index("  - path_regex: ^ssh_key_") :]
    path.write_text(f"{head}  - path_regex: ^dev\\.yaml$\n{body}{tail}")
    git(fleet, "commit", "-qam", "rules")


def written(groups: tuple[tuple[str, ...], ...], threshold: int) -> str:
    lines = [f"      - age: [{', '.join(key(name).recipient for name in group)}]\n" for group in groups]
    return f"    shamir_threshold: {threshold}\n    key_groups:\n{''.join(lines)}"


def opens(fleet: Path, place: Path, names: tuple[str, ...]) -> bool:
    file = place / "some.age"
    file.write_text("".join(f"{key(name).identity}\n" for name in names))
    env = {**os.environ, "SOPS_AGE_KEY_FILE": str(file)}
    done = subprocess.run(["sops", "decrypt", "dev.yaml"], cwd=fleet / "secrets", env=env, capture_output=True)
    return done.returncode == 0 and done.stdout == b"api_token: xyzzy\n"


@pytest.mark.slow
def test_what_the_rule_says_is_reached(fleet: Path, secrets: Any, tmp_path: Path) -> None:
    for groups, threshold, shown in STEPS:
        rule(fleet, written(groups, threshold))
        status = secrets("status", "--json")
        assert status.status == 1
        [state] = [row["state"] for row in status.json["files"] if row["file"] == "secrets/dev.yaml"]
        assert state.endswith(shown), (state, shown)
        done = secrets("apply", "--json")
        assert done.status == 0, done.err
        found = read_file("dev.yaml", (fleet / "secrets/dev.yaml").read_bytes())
        assert found is not None
        assert [{each.value for each in group} for group in found.groups] == [
            {key(name).recipient for name in group} for group in groups
        ]
        assert found.threshold == threshold
        assert secrets("status", "--json").status == 0
        for names in itertools.chain.from_iterable(itertools.combinations(("admin", "doc1", "igp"), n) for n in (1, 2)):
            count = sum(bool({*group} & {*names}) for group in groups)
            assert opens(fleet, tmp_path, names) == (count >= threshold), (groups, threshold, names)


def test_status_shows_groups_and_thresholds(fleet: Path, secrets: Any) -> None:
    rule(fleet, written((A, B), 2))
    assert secrets("apply", "--json").status == 0
    [row] = [row for row in secrets("status", "--json").json["files"] if row["file"] == "secrets/dev.yaml"]
    assert (row["groups"], row["threshold"], row["kinds"]) == ([["admin"], ["doc1"]], 2, ["age"])
    assert "admin | doc1 (2 of 2)" in secrets("status", "--table").out


def test_more_groups_than_somebody_opens_lock_them_out(
    fleet: Path, secrets: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = tmp_path / "admin.age"
    identity.touch(0o600)
    identity.write_text(f"{key('admin').identity}\n")
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(identity))
    rule(fleet, written((A, B), 2))
    before = contents(fleet)
    refused = secrets("apply", "--json")
    assert refused.status == 4
    assert "secrets/dev.yaml: you could no longer decrypt what you can decrypt now" in refused.err
    assert contents(fleet) == before
    assert secrets("apply", "--give-up", "--json").status == 0
    assert not opens(fleet, tmp_path, ("admin",))
    assert opens(fleet, tmp_path, ("admin", "doc1"))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (written((A, B), 3), "shamir_threshold 3 of 2 key groups: sops takes 2 to 2"),
        (written((A, B), 1), "shamir_threshold 1 of 2 key groups: sops takes 2 to 2"),
        (written((A, ()), 2), "key group 2 is empty, and sops refuses that"),
        ("    azure_keyvault: https://v.vault.azure.net/keys/k\n", "has no version, which sops asks Azure for"),
    ],
)
def test_what_cannot_be_followed_is_unknown(fleet: Path, secrets: Any, body: str, why: str) -> None:
    rule(fleet, body)
    status = secrets("status", "--json")
    assert status.status == 1
    [row] = [row for row in status.json["files"] if row["file"] == "secrets/dev.yaml"]
    assert row["state"].startswith("unknown: rule 2 (^dev\\.yaml$): ")
    assert why in row["state"]
    assert any(why in each for each in status.json["findings"])
    assert secrets("apply", "--json").json["changed"] is False


def test_an_expression_that_only_sops_knows_makes_its_files_unknown(fleet: Path, secrets: Any) -> None:
    path = fleet / "secrets/.sops.yaml"
    path.write_text(path.read_text().replace("^dev\\.yaml$", "^\\p{Letter}ev\\.yaml$"))
    git(fleet, "commit", "-qam", "letters")
    rows = {row["file"]: row["state"] for row in secrets("status", "--json").json["files"]}
    assert rows["secrets/common.yaml"] == "ok"  # an earlier rule is its own
    for name in ("dev.yaml", "ssh_key_admin"):
        assert rows[f"secrets/{name}"].startswith("unknown: rule 2 (^\\p{Letter}ev\\.yaml$): only sops can tell")
