"""Generations of a profile, as Nix keeps them: links `PROFILE-NUMBER-link` beside the one that names the current."""

from datetime import datetime
from typing import ClassVar

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from nixherd.base.terminal import one_line
from nixherd.deploy.running import Generation
from nixherd.facts.base import Fact
from nixherd.nix.commands import is_store_path


class ProfileGenerations(Fact[list[Generation]]):
    """Of the profile that `profile` names, a word for the shell; `before` is what the shell has to know for that."""

    abstract = True
    profile: ClassVar[str]
    before: ClassVar[str] = ""

    default = list

    @override
    def command(self) -> str:
        return (
            f"{self.before}readlink {self.profile} || exit 0; for link in {self.profile}-*-link; do "
            'echo "$link $(readlink -f "$link") $(date --iso-8601=seconds -d "@$(stat -c %Y "$link")")"; done'
        )

    @override
    def process(self, output: list[str]) -> list[Generation]:
        current, *rows = output
        found = [self._generation(line, current.strip()) for line in rows]
        return sorted(found, key=lambda generation: generation["number"])

    def _generation(self, line: str, current: str) -> Generation:
        link, path, built = [*line.split(), "", ""][:3]
        number = link.removesuffix("-link").rpartition("-")[2]
        if not number.isdecimal() or not is_store_path(path) or not _is_moment(built):
            raise FactProcessError(f"a line is not `PROFILE-NUMBER-link PATH TIME`: {one_line(line)[:200]}")
        return Generation(number=int(number), path=path, built=built, current=link.endswith(f"/{current}"))


def _is_moment(text: str) -> bool:
    """Whether it is a time as RFC 3339 has it, with its offset."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
