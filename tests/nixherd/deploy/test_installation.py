"""What would stop an installation half-way, found on this side before it begins."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.deploy.installation import obstacles
from tests.nixherd.proxmox.fleets import FLEET
from tests.runs import DESCRIBED, has_installer
from tests.shared import Shared


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = Shared(FLEET, tmp_path / "token")
    has_installer(found)
    return found


def findings(shared: Shared, extra_files: Any = None) -> list[str]:
    return list(obstacles(shared.keys, shared.builder, DESCRIBED, extra_files, None))


def test_nothing_to_say(shared: Shared, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert findings(shared) == []
    assert findings(shared, {"/etc/x": str(tmp_path / "file")}) == []


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        ("/etc/x=file", "dev: extra_files: is not a mapping; write it as"),
        (["/etc/x"], "dev: extra_files: is not a mapping; write it as"),
        ({"etc/x": "HERE"}, "dev: extra_files: etc/x is not an absolute path"),
        ({"/etc/../../x": "HERE"}, "dev: extra_files: /etc/../../x is not an absolute path"),
        ({"/etc/x": "/nowhere"}, "dev: extra_files: /nowhere is not there; correct the path of the local file"),
        ({"/etc/x": "/"}, "dev: extra_files: / is not there"),
    ],
)
def test_extra_files(shared: Shared, files: Any, finding: str) -> None:
    given = {key: value.replace("HERE", __file__) for key, value in files.items()} if isinstance(files, dict) else files
    [line] = findings(shared, given)
    assert line.startswith(finding)


def test_a_key_that_is_no_key_is_one_of_the_findings(shared: Shared) -> None:
    path = shared.keys.private_key_file("dev")
    path.parent.mkdir(parents=True)
    path.write_text("no key")
    path.chmod(0o600)
    has_installer(shared, "other")
    assert len(findings(shared, "x")) == 3
