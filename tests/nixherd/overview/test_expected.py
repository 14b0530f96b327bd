"""What hosts are to be, kept by revision: the same comes back, and nothing is kept of what was not committed."""

import json
from pathlib import Path

import pytest

from nixherd.overview.expected import STATUS, Expected, Kept, unevaluated

COMMIT, DIRTY = "1" * 40, f"{'1' * 40}-dirty"
SYSTEM = f"/nix/store/{'a' * 32}-nixos-system-web01-26.05"
WHOLE = Expected(
    SYSTEM, COMMIT, "evaluated", secrets=("/run/secrets/a",), files=("secrets/a.yaml",), updates={"pulls": True}
)


def test_what_was_evaluated_comes_back(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.keep(COMMIT, {"web01": WHOLE})
    kept.keep(COMMIT, {"web02": Expected(SYSTEM, COMMIT, "evaluated")})
    found = kept.recall(COMMIT)
    assert set(found) == {"web01", "web02"}
    assert found["web01"].source == "kept"
    assert (found["web01"].system, found["web01"].secrets, found["web01"].updates) == (
        SYSTEM,
        WHOLE.secrets,
        {"pulls": True},
    )
    assert found["web02"].secrets is None
    assert kept.recall("2" * 40) == {}
    assert (tmp_path / STATUS / "evaluated").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("revision", [DIRTY, None, "../../etc/passwd", "HEAD"])
def test_nothing_is_kept_of_what_is_no_commit(tmp_path: Path, revision: str | None) -> None:
    kept = Kept(tmp_path)
    kept.keep(revision, {"web01": WHOLE})
    assert not (tmp_path / STATUS).exists()
    assert kept.recall(DIRTY) == {}


@pytest.mark.parametrize(
    "text", ["", "[", "[]", '{"web01": 1}', '{"web01": {"system": "/etc", "updates": null}}', "\0"]
)
def test_what_is_damaged_is_as_if_it_was_not_there(tmp_path: Path, text: str) -> None:
    kept = Kept(tmp_path)
    kept.keep(COMMIT, {"web01": WHOLE})
    [file] = (tmp_path / STATUS / "evaluated").glob("*.json")
    file.write_text(text)
    assert kept.recall(COMMIT) == {}
    kept.keep(COMMIT, {"web01": WHOLE})
    assert kept.recall(COMMIT)["web01"].system == SYSTEM
    assert json.loads(file.read_text())["web01"]["system"] == SYSTEM


def test_the_last_revisions_are_kept(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for number in range(30):
        kept.keep(f"{number:040x}", {"web01": WHOLE})
    assert len(list((tmp_path / STATUS / "evaluated").glob("*.json"))) == 20
    assert kept.recall(f"{29:040x}")


def test_without_an_evaluation_it_is_said_why_it_is_not_known() -> None:
    assert unevaluated(COMMIT, ["web01"], {"web01": WHOLE}, {"web01": "/x"}) == {"web01": WHOLE}
    [deployed] = unevaluated(COMMIT, ["web01"], {}, {"web01": SYSTEM}).values()
    assert (deployed.system, deployed.source, deployed.secrets) == (SYSTEM, "deployed", None)
    for revision, word in ((COMMIT, "not evaluated from here"), (DIRTY, "changed since"), (None, "git does not say")):
        [found] = unevaluated(revision, ["web01"], {}, {}).values()
        assert (found.system, word in (found.why or "")) == (None, True)
