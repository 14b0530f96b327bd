"""With which status a host fails whose change was not made."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from nixherd.base.errors import Exit, FleetError, NotBegun
from nixherd.pyinfra_glue.operation import Change, operation
from tests.nixherd.proxmox.fleets import FLEET, HOST
from tests.runs import Said, connected, perform, said_by
from tests.shared import Shared


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Shared(replace(FLEET, hosts={"dev": replace(HOST, id="dev")}), tmp_path / "token")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    return said_by(caplog)


def fail(error: Exception) -> None:
    raise error


@operation()
def changing(error: Exception | None = None, changes: bool = True) -> Change:
    return Change("change it", partial(fail, error) if error else lambda: None, changes=changes)


@pytest.mark.parametrize(
    ("error", "changes", "status"),
    [
        (NotBegun("dev: it was not told"), True, Exit.REMOTE),
        (FleetError("dev: it broke"), True, Exit.FAILED),
        (FleetError("dev: it broke"), False, Exit.REMOTE),
    ],
)
@pytest.mark.parametrize("before", [None, False, True], ids=["alone", "after a look", "after a change"])
def test_a_change_that_was_not_begun_leaves_the_host_as_the_run_has_made_it(
    shared: Shared, said: Said, error: Exception, changes: bool, status: Exit, before: bool | None
) -> None:
    if before is not None:
        assert not perform(connected(shared, api_only=True), said, changing, changes=before).failed
    assert perform(connected(shared, api_only=True), said, changing, error=error, changes=changes).failed
    assert shared.run.failures == {"dev": Exit.FAILED if before else status}
