"""Generations of a profile, as Nix keeps them: links `PROFILE-NUMBER-link` beside the one that names the current."""

from typing import ClassVar

from typing_extensions import override

from facts.base import Fact
from nixherd.deploy.generations import Generation


class ProfileGenerations(Fact[list[Generation]]):
    """Of the profile that `profile` names, a word for the shell; `before` is what the shell has to know for that."""

    abstract = True
    profile: ClassVar[str]
    before: ClassVar[str] = ""

    @override
    @staticmethod
    def default() -> list[Generation]:
        return []

    @override
    def command(self) -> str:
        return (
            f"{self.before}readlink {self.profile} || exit 0; for link in {self.profile}-*-link; do "
            'echo "$link $(readlink -f "$link") $(date --iso-8601=seconds -d "@$(stat -c %Y "$link")")"; done'
        )

    @override
    def process(self, output: list[str]) -> list[Generation]:
        [current], *rows = [line.split() for line in output]
        found = [
            Generation(
                number=int(link.removesuffix("-link").rpartition("-")[2]),
                path=path,
                built=built,
                current=link.endswith(f"/{current}"),
            )
            for link, path, built in rows
        ]
        return sorted(found, key=lambda generation: generation["number"])
