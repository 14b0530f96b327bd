"""What would stop an installation half-way, found on this side before it begins."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.install.requirements import obstacles
from nixherd.session import Session
from tests.nixherd.proxmox.fleets import FLEET
from tests.runs import DESCRIBED


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = Session(FLEET, tmp_path / "token")
    found.once("installer", lambda: '["kexec-installer"]')
    return found


def findings(session: Session, extra_files: Any = None) -> list[str]:
    return list(obstacles(session, DESCRIBED, extra_files, None))


def test_nothing_to_say(session: Session, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert findings(session) == []
    assert findings(session, {"/etc/x": str(tmp_path / "file")}) == []


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        ("/etc/x=file", "dev: extra_files: is no mapping; write it as"),
        (["/etc/x"], "dev: extra_files: is no mapping; write it as"),
        ({"etc/x": "HERE"}, "dev: extra_files: etc/x is no absolute path"),
        ({"/etc/../../x": "HERE"}, "dev: extra_files: /etc/../../x is no absolute path"),
        ({"/etc/x": "/nowhere"}, "dev: extra_files: /nowhere is not there; correct the path of the local file"),
        ({"/etc/x": "/"}, "dev: extra_files: / is not there"),
    ],
)
def test_extra_files(session: Session, files: Any, finding: str) -> None:
    given = {key: value.replace("HERE", __file__) for key, value in files.items()} if isinstance(files, dict) else files
    [line] = findings(session, given)
    assert line.startswith(finding)


def test_a_key_that_is_no_key_is_one_of_the_findings(session: Session) -> None:
    path = session.state_of("dev").private_key_file
    path.parent.mkdir(parents=True)
    path.write_text("no key")
    path.chmod(0o600)
    session._memo["installer"] = "[]"
    assert len(findings(session, "x")) == 3
