"""Whether a `.sops.yaml` is made by something else, which would undo an edit of it; read from what it says and is."""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from nixherd.fleet.tree import Tree
from nixherd.trust.secrets.places import Layout, from_fleet

_HEAD = 30  # lines
_SAYS = re.compile(
    r"do not (?:manually )?(?:edit|modify|change)|don't edit|(?:auto(?:matically)?|machine)[ -]?generated|@generated"
    r"|(?:this|real|a) (?:\S+ )?(?:file|\.sops\.yaml) (?:is|was) generated"
    r"|\bgenerated (?:by|from|via|using)\b(?! (?:\S+ )?(?:age-keygen|ssh-to-age|ssh-keygen|gpg|age|ssh)\b)",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"\s*#")
_MAKES = re.compile(
    r"\bwriteText|toYAML|\btoJSON|generators|formats\.yaml|\bln -s|\bcp |\binstall |\bcat |>|\btext\s*="
)
_NEAR = 3  # lines before and after the one that names the file
_STORE = "/nix/store/"
LINK = "it is a link to"


def says_so(text: str) -> str | None:
    """Why a configuration's own comments tell that it is generated, None where they do not."""
    for number, line in enumerate(text.splitlines()[:_HEAD], 1):
        if _COMMENT.match(line) and _SAYS.search(line):
            return f"line {number} says so: {line.strip().lstrip('#').strip()}"
    return None


def configuration(root: Path, layout: Layout, config: str, tree: Tree) -> tuple[bytes | None, str | None]:
    """What a `.sops.yaml` says, and why it is not one to edit, where it is a link."""
    if not (root / config).is_symlink():
        return tree.read(config), None
    try:
        target = (root / config).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        raise ValueError(f"is a link to {(root / config).readlink()}, where nothing is; make it a file") from None
    if target.is_file() and str(target).startswith(_STORE):
        return target.read_bytes(), f"{LINK} {target}"  # whoever made the link, everybody may read what is there
    top = root.resolve()
    for _ in Path(layout.prefix).parts:
        top = top.parent
    if not target.is_relative_to(top):
        return tree.read(config), None  # which refuses it
    real = from_fleet(target.relative_to(top).as_posix(), layout.prefix)
    return tree.read(real), f"{LINK} {real}"


def made_by(tree: Tree, paths: Iterable[str], name: str) -> str | None:
    """Which of these Nix files writes a file of this name, with the line; None where none seems to."""
    for path in sorted(paths):
        content = tree.read(path) or b""
        if name.encode() not in content:
            continue
        lines = ["" if _COMMENT.match(line) else line for line in content.decode(errors="replace").split("\n")]
        for number, line in enumerate(lines):
            near = "\n".join(lines[max(0, number - _NEAR) : number + _NEAR + 1])
            if re.search(rf"(?<![\w-]){re.escape(posixpath.basename(name))}(?![\w.-])", line) and _MAKES.search(near):
                return f"{path}:{number + 1} makes it"
    return None
