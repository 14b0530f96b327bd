import os
from pathlib import Path

import pytest

from nixherd.base.files import write_whole


def test_content_and_name_are_on_the_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()))
    path = tmp_path / "host" / "key"
    write_whole(path, "text")
    assert path.read_text() == "text"
    assert synced[0].name.startswith(".key.")
    assert synced[1:] == [tmp_path / "host", tmp_path]


def test_nothing_is_left_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "taken", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]
    assert [each.name for each in (tmp_path / "taken").iterdir()] == ["inside"]


def test_mode_is_its_own(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "x")
    write_whole(tmp_path / "b", "x", mode=0o644)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o600, 0o644]
