"""The commands of a page as somebody types them, block by block, and the shape of the output that is shown below them.

A block of commands is indented, or its fence says `sh`, `bash`, `console` or nothing. Everything else says in which
language it is. A block that cannot run in the lab stands below `<!-- not in the lab: REASON -->`.
"""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pages.markdown import Block, Page

SHELL = ("", "console", "sh", "bash")
DATA = ("nix", "python", "toml", "yaml", "json", "ini", "text", "cron")
MOST_MARKED = 5
_MARK = re.compile(r"<!--\s*not in the lab:\s*(.*?)\s*-->", re.DOTALL)
_MORE = ("unexpected end of file", "unexpected EOF", "here-document")  # what bash says of a text that goes on
_PROMPT = "$ "
_ELLIPSIS = "…"
# What a person types first; a line of `text` that begins like that is a block whose language is wrong.
_TYPED = re.compile(r"(\$ |(sudo |python -m |)(nixherd|pyinfra|nix|make|git|lab)\s)")
_WILD = re.compile(
    r"(?P<gap>…)|(?P<blank>\s+)|(?P<word>[A-Za-z0-9+/_-]{44,}|\b(?=[a-z]*\d)[0-9a-z]{7,}\b)|(?P<number>(?<!\w)\d[\d.,:]*)"
)


@dataclass(frozen=True)
class Command:
    """What is typed, on one line or several, and the lines that are shown below it; `line` is its own in the page."""

    line: int
    text: str
    output: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Return it without what is said beside it, blanks made one."""
        return " ".join(re.sub(r"(^|\s)#\s.*$", "", self.text, flags=re.MULTILINE).split())


@dataclass(frozen=True)
class CommandBlock:
    """A block of commands of a page; `reason` is why it is not run in the lab, empty where it is."""

    page: str
    line: int
    commands: tuple[Command, ...]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def command_blocks(page: Page) -> list[CommandBlock]:
    """Return the page's blocks of commands, in order."""
    return [
        CommandBlock(page.name, block.line, tuple(_commands(block)), _reason(block))
        for block in page.blocks
        if language(block) in SHELL
    ]


def language(block: Block) -> str:
    """Return what follows the block's fence, empty for an indented one."""
    return (block.info.split() or [""])[0]


def problems(page: Page) -> Iterator[str]:
    """Say which blocks nobody would run and nobody has marked: of no known language, or commands called text."""
    for block in page.blocks:
        place, kind = f"{page.name}:{block.line}", language(block)
        if kind not in (*SHELL, *DATA):
            yield f"{place}: {kind}: neither commands ({', '.join(SHELL[1:])}) nor a known language"
        elif kind == "text" and (typed := [line for line in block.text.splitlines() if _TYPED.match(line)]):
            yield f"{place}: text that is typed: {typed[0]}"
        elif kind in SHELL and not any(_commands(block)):
            yield f"{place}: no command; say which language it is"
        if block.comment and not _MARK.fullmatch(block.comment):
            yield f"{place}: <!-- not in the lab: REASON --> is the only remark that a block may have"


def _reason(block: Block) -> str:
    match = _MARK.fullmatch(block.comment)
    return match[1] if match else ""


def _commands(block: Block) -> Iterator[Command]:
    """Each command, as soon as the shell would run it; in a console those behind the prompt, with what follows."""
    lines = list(enumerate(block.text.splitlines(), block.line))
    is_console = any(line.startswith(_PROMPT) for _, line in lines)
    at = 0
    while at < len(lines):
        first, text = lines[at]
        at += 1
        if (is_console and not text.startswith(_PROMPT)) or not text.strip():
            continue
        text = text.removeprefix(_PROMPT) if is_console else text
        while not _is_whole(text) and at < len(lines):
            text, at = f"{text}\n{lines[at][1]}", at + 1
        shown = at
        while is_console and at < len(lines) and not lines[at][1].startswith(_PROMPT):
            at += 1
        yield Command(first, text, tuple(line for _, line in lines[shown:at] if line.strip()))


def _is_whole(text: str) -> bool:
    """Whether a shell would run this, or wait for more."""
    if text.endswith("\\"):
        return False
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    return not any(sign in done.stderr for sign in _MORE)


def missing(shown: Sequence[str], output: str) -> str:
    """Return the first shown line that the output lacks, in this order and without others between; else nothing.

    Numbers, times, versions, hashes and blanks are wild. `…` is any text in a line, and any lines where it is alone.
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    groups = _groups(shown)
    at = 0
    for number, group in enumerate(groups):
        patterns = [_pattern(line) for line in group]
        starts = range(at, len(lines) - len(group) + 1) if number or group else range(0)
        found = next((start for start in starts if _match(patterns, lines[start:])), None)
        if found is None:
            return _first_missing(group, patterns, lines[at:])
        at = found + len(group)
    ends_open = not shown or shown[-1].strip() == _ELLIPSIS
    return "" if ends_open or at == len(lines) else f"(and nothing after it) {lines[at]}"


def _groups(shown: Sequence[str]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == _ELLIPSIS:
            groups.append([])
        else:
            groups[-1].append(line)
    return [group for group in groups if group]


def _match(patterns: Sequence["re.Pattern[str]"], lines: Sequence[str]) -> bool:
    return all(pattern.fullmatch(line) for pattern, line in zip(patterns, lines, strict=False))


def _first_missing(group: Sequence[str], patterns: Sequence["re.Pattern[str]"], lines: Sequence[str]) -> str:
    each = (line for line, pattern in zip(group, patterns, strict=True) if not any(map(pattern.fullmatch, lines)))
    return next(each, f"{group[0]} (others are between)")


def _pattern(line: str) -> "re.Pattern[str]":
    wild = {"gap": ".*", "blank": r"\s+", "word": r"[\w+/-]+", "number": r"[\d.,:]+"}
    found, at = r"\s*", 0
    text = line.strip()
    for match in _WILD.finditer(text):
        assert match.lastgroup is not None
        found += re.escape(text[at : match.start()]) + wild[match.lastgroup]
        at = match.end()
    return re.compile(found + re.escape(text[at:]) + r"\s*")
