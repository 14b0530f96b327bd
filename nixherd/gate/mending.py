"""What tools can mend by themselves: done on copies, looked at, and put in place one whole file after the other."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tree_sitter_nix
from tree_sitter import Language, Parser

from nixherd.errors import FleetError
from nixherd.fleet.tree import opened
from nixherd.gate import alejandra, deadnix, statix
from nixherd.gate.files import Place, copied, read_all
from nixherd.gate.results import Missing, Unknown

_LANGUAGE = Language(tree_sitter_nix.language())
# The last one formats what the others have left.
MENDERS: Mapping[str, Callable[[Place, float], None]] = {
    "statix": statix.fix,
    "deadnix": deadnix.edit,
    "alejandra": alejandra.format_files,
}


@dataclass(frozen=True)
class Mended:
    """Contents by file, before and after, of those that are to be another; `unmended` says which tool could not."""

    before: Mapping[str, bytes] = field(repr=False)
    after: Mapping[str, bytes] = field(repr=False)
    unmended: Sequence[str] = ()

    def diff(self) -> str:
        """As `diff -u` prints it."""
        return "".join(_diff(file, self.before[file], self.after[file]) for file in sorted(self.after))


def mended(root: Path, files: Sequence[str], names: Collection[str], deadline: float) -> Mended:
    """What the tools of these names would make of the files. A file that would not parse any more stays as it is.

    Missing or Unknown where the only tool that is asked for cannot do it.
    """
    before = {file: content for file, content in read_all(root, files).items() if file.endswith(".nix")}
    sound = {file for file, content in before.items() if parses(content)}
    unmended: list[str] = []
    with copied(root, before) as copy:
        for name, mend in MENDERS.items():
            # Whether a file parses is for the formatter to say, which leaves it alone if not.
            able = sorted(before if name == alejandra.PROGRAM else sound)
            if name not in names or not able:
                continue
            try:
                mend(Place(copy.root, able, root), deadline)
            except (Missing, Unknown) as error:
                if len(names) == 1:
                    raise
                unmended.append(str(error))
        after = {file: (copy.root / file).read_bytes() for file in before}
    differing = {file: content for file, content in after.items() if content != before[file]}
    broken = [file for file, content in differing.items() if file in sound and not parses(content)]
    unmended += [f"{file}: would not parse any more, and stays as it is" for file in broken]
    return Mended(before, {file: differing[file] for file in differing if file not in broken}, unmended)


def put_in_place(root: Path, found: Mended) -> list[str]:
    """Replace the files, each whole or not at all, its mode kept; their paths. FleetError for one changed meanwhile."""
    with opened(root) as tree:
        for file, content in found.after.items():
            if tree.read(file) != found.before[file]:
                raise FleetError(f"{root / file}: was changed meanwhile; nothing was done to it, run it again")
            tree.replace(file, content)
    return sorted(found.after)


def parses(content: bytes) -> bool:
    return not Parser(_LANGUAGE).parse(content).root_node.has_error


def _diff(file: str, before: bytes, after: bytes) -> str:
    old, new = (text.decode(errors="replace").splitlines(keepends=True) for text in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{file}", f"b/{file}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
