"""Who may push a commit to a fleet has no Python of theirs run by `nixherd`, wherever in the repository it lies."""

from pathlib import Path

import pytest

from nixherd.cli.main import run

pytestmark = pytest.mark.nix

EVIL = "from pathlib import Path\nPath({!r}).touch()\n"
COMMANDS = (
    *(["plan"], ["deploy"], ["reboot"], ["publish", "out"], ["retire", "web"], ["vm", "list"], ["vm", "start", "web"]),
    *(["lock", "update"], ["secrets", "status"], ["check", "--only", "definitions"], ["provision", "web"]),
)


@pytest.mark.parametrize("place", [".", "fleet"], ids=["the repository", "the fleet"])
def test_no_file_of_the_tree_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    fleet, ran = tmp_path / "repository/fleet", tmp_path / "ran"
    fleet.mkdir()
    directory = tmp_path / "repository" / place
    (directory / "group_data").mkdir()
    for name in ("inventory.py", "config.py", "nodes.py", "group_data/all.py", "group_data/web.py"):
        (directory / name).write_text(EVIL.format(str(ran)))
    (fleet / "hosts.nix").write_text("{ }\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FLEET", raising=False)
    monkeypatch.chdir(directory)
    for words in COMMANDS:
        run(words)
        assert not ran.exists(), words
    assert "group_data/all.py:1: write NAME = VALUE with a plain value" in capfd.readouterr().err
