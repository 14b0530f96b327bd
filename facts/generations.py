"""Generations of a profile, as Nix keeps them: links `PROFILE-NUMBER-link` beside the one that names the current."""

from typing import TypedDict


class Generation(TypedDict):
    """`built` is when the profile came to it, as RFC 3339; `path` a store path."""

    number: int
    path: str
    built: str
    current: bool


def listing(profile: str) -> str:
    """Prints them; `profile` is a word for the shell."""
    return (
        f"readlink {profile} || exit 0; for link in {profile}-*-link; do "
        'echo "$link $(readlink -f "$link") $(date --iso-8601=seconds -d "@$(stat -c %Y "$link")")"; done'
    )


def parse(output: list[str]) -> list[Generation]:
    """What `listing` printed, oldest first."""
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
