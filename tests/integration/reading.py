"""Pages read in the lab: every block of commands typed in the printed order, and its output compared in shape."""

import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lab.control import Running
from pages.command_blocks import Command, command_blocks, missing
from pages.markdown import ROOT, Page
from tests.integration.lab_driver import CHECKOUT, Lab
from tests.integration.typed import Answers, Terminal

FEW = 40  # lines of a command's output that a failure shows
AS_COMMITTED = 'git -C "$FLEET" reset -q --hard && git -C "$FLEET" clean -fdq'


@dataclass(frozen=True)
class Scene:
    """What a page takes for granted, and what is different in the lab from what it says.

    `before` is typed first; `meanwhile`, by command, before that one: what the text between the blocks tells people to
    do. `values` are the lab's for the examples of the page. `statuses` are those other than 0, by command; `seen` are
    the commands that are run elsewhere. `outside` is typed outside of the lab, in the checkout.
    """

    before: str = ""
    meanwhile: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, Answers] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    seen: Collection[str] = ()
    outside: bool = False


@dataclass(frozen=True)
class Reader:
    """Somebody with a lab and a terminal, who begins each page anew."""

    lab: Lab
    directory: Path = CHECKOUT

    def read(self, name: str, scene: Scene) -> None:
        """Type a page's commands, each; AssertionError with all that went otherwise than printed."""
        wrong, count = [], 0
        for terminal in (self._inside, self._outside):
            terminal.forget()
        if scene.before:
            self._silently(scene.before, self._outside if scene.outside else self._inside)
        for block in command_blocks(Page(name, (ROOT / name).read_text())):
            for command in () if block.reason else block.commands:
                count += 1
                if command.words not in scene.seen:
                    wrong += [f"{name}:{command.line}: {command.words}: {why}" for why in self._typed(command, scene)]
        assert not wrong, "\n".join(wrong)
        assert count, f"{name}: no command was run"

    def _silently(self, text: str, terminal: Terminal) -> None:
        status, output = terminal.type(text)
        assert status == 0, f"{text}\n{output}"

    def _typed(self, command: Command, scene: Scene) -> list[str]:
        if text := scene.meanwhile.get(command.words, ""):
            self._silently(text, self._inside)
        text = command.text
        for example, value in scene.values.items():
            text = text.replace(example, value)
        terminal = self._outside if scene.outside or text.startswith("make ") else self._inside
        began = time.monotonic()
        status, output = terminal.type(text, scene.answers.get(command.words, ()))
        print(f"{time.monotonic() - began:6.1f} s  {command.words}", flush=True)  # for -rP, and where it fails
        last = "\n".join(output.splitlines()[-FEW:])
        if status != scene.statuses.get(command.words, 0):
            return [f"status {status}\n{last}"]
        line = missing(command.output, output) if command.output else ""
        return [f"the output has no line like\n  {line}\nbut\n{last}"] if line else []

    @cached_property
    def _inside(self) -> Terminal:
        def inside(argv: list[str]) -> list[str]:
            return Running.require(self.lab.places).inside(argv, self.directory)

        return Terminal(self.lab.state / "typed", inside, lambda: self.lab.inside()[1] | {"NO_COLOR": ""})

    @cached_property
    def _outside(self) -> Terminal:
        # `make` finds its Python in the checkout, others on PATH
        path = f"{Path(sys.executable).parent}:{self.lab.environment['PATH']}"
        environment = {**self.lab.environment, "PATH": path, "SHELL": "bash"}
        return Terminal(self.lab.state / "typed-outside", list, lambda: environment)
