"""A fleet's shared over the emulator, and how to perform one operation in a run of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.locate import reach
from tests.nixherd.conftest import base_root, operator_key, sshd  # noqa: F401  (fixtures)
from tests.nixherd.proxmox.conftest import Emulator, dev, emulator, no_long_pauses, started  # noqa: F401
from tests.runs import Outcome, Said, connected, evaluates_to, perform, said_by, shared_at
from tests.shared import Shared


@pytest.fixture
def shared(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:  # noqa: F811
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # loopback is not an address that others can reach
    monkeypatch.setattr(reach, "address_of", lambda config, interfaces: interfaces[0].addresses[0])
    found = shared_at(emulator, tmp_path)
    evaluates_to(found)
    return found


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    return said_by(caplog)


@pytest.fixture
def run(shared: Shared, said: Said) -> Callable[..., Outcome]:
    """Performs an operation on `dev` in a run of its own."""

    def one(operation: Any, *, plan: bool = False, data: dict[str, Any] | None = None, **arguments: Any) -> Outcome:
        host = connected(shared, **(data or {}))
        assert host.connected, said()
        return perform(host, said, operation, plan=plan, **arguments)

    return one
