"""pyinfra asks nobody for sudo's password where stdin has none."""

from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.connectors import util
from pyinfra.connectors.util import CommandOutput, OutputLine

from nixherd.pyinfra_glue.cli import _never_prompt_for_sudo


def test_nobody_is_asked_for_sudos_password(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return ""

    lines = util.SUDO_PASSWORD_REQUIRED_LINES
    monkeypatch.setattr(util, "SUDO_PASSWORD_REQUIRED_LINES", lines)  # and as it was in the end
    monkeypatch.setattr(util, "getpass", ask)
    failed = 1, CommandOutput([OutputLine("stderr", lines[0])])
    host: Any = SimpleNamespace(print_prefix="", connector_data={})
    assert util.execute_command_with_sudo_retry(host, {}, lambda: failed) == failed
    assert asked == ["sudo password: "], "without us it would be"
    _never_prompt_for_sudo()
    assert util.execute_command_with_sudo_retry(host, {}, lambda: failed) == failed
    assert len(asked) == 1
