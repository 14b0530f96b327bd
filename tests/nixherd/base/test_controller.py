"""Which machines nixherd runs on."""

import sys

import pytest

from nixherd.base.controller import require_linux
from nixherd.base.errors import Usage
from nixherd.cli.main import run


def test_linux_is_one() -> None:
    require_linux()


def test_a_command_on_another_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Usage, match="runs on Linux"):
        require_linux()
    for words in (["hosts"], ["secrets", "status"], ["deploy", "--help"]):
        assert run(words) == 2
        err = capsys.readouterr().err
        assert err.startswith("nixherd runs on Linux, and this is darwin; start it on one: ")
        assert err.count("\n") == 1
    assert run(["--version"]) == 0
