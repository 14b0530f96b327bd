"""What only looks at a machine is asked again where the connection broke meanwhile; what changes it is not."""

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pyinfra.api.host import Host

from nixherd.base.errors import FleetError, NotSent, Unforeseen
from nixherd.pyinfra_glue import installing as installing_module
from nixherd.pyinfra_glue.engine import PyinfraMachine, begin_reached
from nixherd.pyinfra_glue.installing import machine_for, machine_of, require_still_installable
from nixherd.pyinfra_glue.proving_secrets import _answer
from tests.nixherd.pyinfra_glue.connector.conftest import Machine, connector_of, installing
from tests.runs import executing
from tests.shared import Shared

pytestmark = pytest.mark.xdist_group("emulator")
LOST = OSError(errno.EHOSTUNREACH, "No route to host")


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have the connection break under the next commands, as many as there are errors; return what was sent."""

    def begin(host: Host, *errors: Exception) -> list[str]:
        sent, left, send = list[str](), [*errors], connector_of(host).send

        def broken(command: Any, *words: Any, **arguments: Any) -> Any:
            sent.append(str(command))
            if left:
                connector_of(host).leave()
                raise left.pop(0)
            return send(command, *words, **arguments)

        monkeypatch.setattr(connector_of(host), "send", broken)
        return sent

    return begin


def looks(host: Host) -> dict[str, Callable[[], object]]:
    return {
        "machine": lambda: machine_of(host),
        "installable": lambda: require_still_installable(host, "install"),
        "secrets": lambda: _answer(host, "echo there", "reading its secrets"),
        "row": lambda: begin_reached(host),
    }


@pytest.mark.parametrize("name", ["machine", "installable", "secrets", "row"])
def test_a_look_whose_connection_breaks_is_made_again(
    run: Callable[..., Host],
    machine: Machine,
    breaks: Callable[..., list[str]],
    shared: Shared,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(installing_module, "load_fleet", lambda path: shared.fleet)
    machine("installer" if name == "installable" else "final")
    host = installing(run()) if name == "installable" else executing(run())
    connector_of(host).reach()
    sent = breaks(host, LOST)
    with suppress(FleetError):  # what this machine of the tests cannot answer
        looks(host)[name]()
    assert sent[0] == sent[1], "the same question, once more"
    assert connector_of(host).connected


def test_it_is_asked_once_more_and_not_for_ever(
    run: Callable[..., Host], machine: Machine, breaks: Callable[..., list[str]]
) -> None:
    machine("final")
    host = executing(run())
    sent = breaks(host, LOST, LOST)
    with pytest.raises(OSError, match="No route to host"):
        machine_of(host)
    assert len(sent) == 2


@pytest.mark.parametrize("error", [NotSent("dev: not connected"), Unforeseen("a fault of ours")])
def test_what_was_not_asked_or_is_a_fault_of_ours_is_not_asked_again(
    run: Callable[..., Host], machine: Machine, breaks: Callable[..., list[str]], error: Exception
) -> None:
    machine("final")
    host = executing(run())
    sent = breaks(host, error)
    with pytest.raises(type(error)):
        machine_for(host).look(lambda: machine_for(host).run("true"))
    assert len(sent) == 1


def test_a_plan_waits_for_nobody(run: Callable[..., Host], machine: Machine, breaks: Callable[..., list[str]]) -> None:
    machine("final")
    host = run()
    sent = breaks(host, LOST)
    with pytest.raises(OSError, match="No route to host"):
        PyinfraMachine(host).look(lambda: PyinfraMachine(host).run("true"))
    assert len(sent) == 1


def test_what_changes_a_machine_is_told_once(
    run: Callable[..., Host], machine: Machine, breaks: Callable[..., list[str]]
) -> None:
    machine("final")
    host = executing(run())
    sent = breaks(host, LOST)
    with pytest.raises(OSError, match="No route to host"):
        PyinfraMachine(host).run("reboot")
    assert sent == ["reboot"]
