"""A verb is one class: its operation, its command and their parameters are made from it."""

import inspect
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from nixherd.base.errors import Refused, Usage
from nixherd.base.names import size_of, text_of
from nixherd.cli.front import Front
from nixherd.cli.vm import vm as VM
from nixherd.cli.vm_change import command_of
from nixherd.fleet.models import Fleet, Vm
from nixherd.operations import proxmox
from nixherd.proxmox.guest.disks import ResizeDisk
from nixherd.proxmox.guest.lifecycle import RebootGuest
from nixherd.proxmox.guest.snapshots import Action, Reversible
from nixherd.proxmox.guest.verb import Guest, Verb, argument, flag, option
from nixherd.proxmox.guest.verbs import COMMANDS, VERBS
from nixherd.proxmox.steps import Start, Steps
from nixherd.pyinfra_glue.guests import operation_of
from tests.nixherd.proxmox.fleets import DEV, FLEET


@dataclass(frozen=True)
class NudgeGuest(Verb):
    """Nudge a guest with SIZE bytes.

    What follows is for those who write deploys.
    """

    name = "nudge"
    command = "nudge"
    verb = "nudge"
    undo = True
    size: int = argument(size_of)
    gently: bool = flag("Not gently.", default=True, option="--hard", negated=True)
    tool: str | None = option(text_of, help="With this.")

    def check(self, fleet: Fleet, vm: Vm) -> None:
        if self.tool == "hammer":
            raise Usage("not with a hammer")

    def look(self, guest: Guest) -> Steps:
        return (Start("prom", guest.vm.vmid),)


def test_one_class_is_a_command() -> None:
    command = command_of(NudgeGuest)
    shown = CliRunner().invoke(command, ["--help"], obj=Mock())
    assert command.name == "nudge"
    for words in (
        "nudge [OPTIONS] GUEST SIZE",
        "Nudge a guest with SIZE bytes.",
        "--hard",
        "Not gently.",
        "--tool TEXT",
    ):
        assert words in shown.output
    assert "--snapshot [keep|remove]" in shown.output
    assert "deploys" not in shown.output


class Recording(Front):
    """A front that keeps what it is to carry out."""

    def act(self, name: str, action: Action) -> int:
        self.acted: tuple[str, Any] = (name, action)
        return 0


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (["2G"], NudgeGuest(2 << 30, by_person=True)),
        (["2G", "--hard", "--tool", "pin"], NudgeGuest(2 << 30, gently=False, tool="pin", by_person=True)),
        (["2G", "--snapshot", "keep"], NudgeGuest(2 << 30, by_person=True)),
    ],
)
def test_what_is_typed_reaches_the_verb(words: list[str], action: NudgeGuest) -> None:
    front = Recording("fleet", "token")
    CliRunner().invoke(command_of(NudgeGuest), ["dev", *words], obj=front, catch_exceptions=False)
    name, acted = front.acted
    assert name == "dev"
    assert acted == (action if "--snapshot" not in words else Reversible(action, True, acted.began, acted.run_id))


def test_one_class_is_an_operation() -> None:
    body = operation_of(NudgeGuest)._inner
    assert (body.__name__, body.__module__) == ("nudge", "nixherd.operations.proxmox")
    assert body.__doc__ == NudgeGuest.__doc__
    assert str(inspect.signature(body)) == "(size, gently=True, tool=None, snapshot=None)"


def test_parameters_are_read_as_people_type_them() -> None:
    assert NudgeGuest.read(size="2G", gently=0) == NudgeGuest(2 << 30, gently=False)
    for given, says in (
        ({"size": 2}, "size=2 is not a size"),
        ({}, "nudge needs size"),
        ({"size": "2G", "tools": "x"}, "nudge has no parameter tools"),
        ({"size": "2G", "gently": "very"}, "gently=very is neither true nor false"),
    ):
        with pytest.raises(Usage, match=says):
            NudgeGuest.read(**given)


def test_what_cannot_be_meant_is_refused_before_anything_is_asked() -> None:
    client = Mock()
    with pytest.raises(Usage, match="not with a hammer"):
        NudgeGuest(1, tool="hammer").plan(client, FLEET, DEV)
    for vm in (replace(DEV, readonly=True), FLEET.vms["doc1"]):
        with pytest.raises(Refused, match="refusing to nudge it"):
            NudgeGuest(1, tool="hammer").plan(client, FLEET, vm)
    assert client.mock_calls == []


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_an_operation_with_a_docstring(name: str) -> None:
    verb, operation = VERBS[name], getattr(proxmox, name)
    assert verb.verb
    assert (verb.__doc__ or "").split("\n\n")[0].rstrip().endswith(".")
    assert operation._inner.__doc__


def test_every_command_of_a_verb_is_there() -> None:
    assert set(COMMANDS) <= set(VM.commands)


def test_a_parameter_is_the_same_in_both_but_for_how_it_is_written() -> None:
    assert str(inspect.signature(operation_of(RebootGuest)._inner)) == "(always=False, timeout=180)"
    written = {each.name: each.opts for each in command_of(RebootGuest).params}
    assert written["always"] == ["--if-pending"]
    assert str(inspect.signature(operation_of(ResizeDisk)._inner)) == "(disk=None, size=None, snapshot=None)"
