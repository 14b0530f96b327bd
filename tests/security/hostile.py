"""A thousand strings that somebody else may say, and what of them must not reach a terminal."""

import itertools
import re

# What acts on a terminal, on rich or on a reader of lines; %d tells one from another.
_SHAPES = (
    "\x1b[%dmred",
    "\x1b]0;title %d\x07",
    "\x1b]52;c;%d\x07",
    "\x1b]8;;http://%d\x1b\\link",
    "\x1b[%dA\x1b[2K",
    "\x1bP%d\x1b\\",
    "\x9b%d;1H",
    "\x9d0;%d\x9c",
    "over\rwritten %d",
    "back\x08\x08%d",
    "bell\x07%d",
    "null\x00%d",
    "\u202emoc.%d\u202c",
    "\u2066iso%d\u2069",
    "zero\u200bwidth%d",
    "\u2028line%d\u2029",
    "\ufefftag%d\U000e0041",
    "[/dev/sda%d] is full",
    "[bold]%d[/nothing]",
    "[link=http://%d]x",
    "%d \ud800 half",
    "{%d} %% $(id)",
    "\x7f%d\x85next",
    "\x1b[?1049h%d",
    "form\x0cfeed\x0b%d",
)
STRINGS = [shape.replace("%d", str(10_000 + number)) for number, shape in zip(range(1000), itertools.cycle(_SHAPES))]
TEXT = " ".join(STRINGS)

# On a terminal our own colours, tables and progress bars use ESC and carriage returns; nobody uses the others.
_NEVER = re.compile(
    "[\x00-\x07\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]|[\ud800-\udfff]"
)
_CORES = [each for each in STRINGS if "\x1b" in each or "\r" in each]


def obeyed(output: str) -> list[str]:
    """What of the strings, as it is, or which character that acts, is in this output."""
    found = [repr(match) for match in _NEVER.findall(output)]
    return sorted({*found, *(repr(core) for core in _CORES if core in output)})
