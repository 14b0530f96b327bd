"""Where the fleet's files name something: a host by one of its names, or a file that is to go, as a path. Pure."""

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tree_sitter import Node

from nixherd.nix.syntax import parse, walk

_SHOWN = 80  # characters of a line that mentions a host


@dataclass(frozen=True, slots=True)
class Mention:
    """`text` is what stands in the line, without its indentation."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def mentions_of(texts: Mapping[str, bytes], names: Collection[str]) -> list[Mention]:
    """Every line that names a host by one of its names, once. In Nix files, comments are none."""
    word = _word(names)
    found = []
    for path, content in sorted(texts.items()):
        if b"\0" in content or not any(name.encode() in content for name in names):
            continue
        lines = _in_nix(content, word) if path.endswith(".nix") else _in_text(content, word)
        found += [_mention(path, content, line, word) for line in sorted(set(lines))]
    return found


def imported(texts: Mapping[str, bytes], targets: Collection[str]) -> list[Mention]:
    """Every line of a Nix file that names one of these files, or something in one of these directories, as a path.

    Also as a part of a string that ends with the path: `"${flake-root}/hosts/web1/x.nix"`.
    """
    found = []
    for path, content in sorted(texts.items()):
        last = [posixpath.basename(target).encode() for target in targets]
        if path.endswith(".nix") and any(name in content for name in last):
            lines = {node.start_point[0] + 1 for node, to in _paths(path, content) if _is_in(to, targets)}
            found += [_mention(path, content, line) for line in sorted(lines)]
    return found


def _is_in(path: str, targets: Collection[str]) -> bool:
    return any(path == target or path.startswith(f"{target}/") for target in targets)


def _paths(path: str, content: bytes) -> Iterator[tuple[Node, str]]:
    """The paths that a Nix file names, below the fleet's directory; of one that is put together, what is known."""
    for node in walk(parse(content)):
        text = (node.text or b"").decode(errors="replace")
        if node.type == "path_expression":
            known, cut, _ = text.partition("${")
            if not cut or known.endswith("/"):
                yield node, posixpath.normpath(posixpath.join(posixpath.dirname(path), known))
        elif node.type == "string_fragment":
            for part in re.findall(r"[\w.+@/-]+", text):
                yield node, posixpath.normpath(part.lstrip("/"))


def _in_nix(content: bytes, word: re.Pattern[str]) -> Iterator[int]:
    for node in walk(parse(content)):
        text = (node.text or b"").decode(errors="replace")
        if node.type == "identifier" and node.parent is not None and node.parent.type != "variable_expression":
            if word.fullmatch(text):
                yield node.start_point[0] + 1
        elif node.type in ("string_fragment", "path_fragment", "path_expression", "uri_expression"):
            for match in word.finditer(text):
                yield node.start_point[0] + 1 + text.count("\n", 0, match.start())


def _in_text(content: bytes, word: re.Pattern[str]) -> Iterator[int]:
    for number, line in enumerate(content.decode(errors="replace").split("\n"), 1):
        if word.search(line):
            yield number


def _word(names: Iterable[str]) -> re.Pattern[str]:
    """The whole word: `dev` is neither in `dev2` nor in `/dev/sda`; but in `.#dev`, `ssh://dev`, `root@dev`."""
    either = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    before = r"(?:(?<![\w./-])|(?<=//)|(?<=hosts/)|(?<=[hH]osts\.)|(?<=onfigurations\.))"
    return re.compile(rf"{before}(?:{either})(?![\w-])")


def _mention(path: str, content: bytes, line: int, word: re.Pattern[str] | None = None) -> Mention:
    text = " ".join(content.split(b"\n")[line - 1].decode(errors="replace").split())
    match = word.search(text) if word else None
    start = max(0, min(match.start() - _SHOWN // 2, len(text) - _SHOWN)) if match else 0
    part = text[start : start + _SHOWN]
    return Mention(path, line, f"{'…' if start else ''}{part}{'…' if start + _SHOWN < len(text) else ''}")
