"""One way of starting a tool: it is here, it ends in time, by itself and not by a fault of its own."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from nixherd.errors import DeadlineExceeded, ProcessFailed
from nixherd.gate.results import Missing, Unknown
from nixherd.process import Completed, run

_AT_ONCE = 1000  # files of one call: the kernel takes 2 MiB of arguments
_SHOWN = 300  # characters
# By a colour, or by where its ads and caches are, a tool would say or do something else.
_PLAIN = {"NO_COLOR": "1", "CLICOLOR": "0", "LC_ALL": "C.UTF-8", "RUST_BACKTRACE": "0"}


def run_tool(
    argv: Sequence[str], cwd: Path, deadline: float, statuses: Collection[int], env: Mapping[str, str] | None = None
) -> Completed:
    """What a tool wrote, whose status is one that means something. Missing or Unknown otherwise."""
    require(argv[0])
    try:
        done = run(argv, cwd=cwd, env={**_PLAIN, **(env or {})}, timeout=deadline, check=False)
    except DeadlineExceeded:
        raise Unknown(f"{argv[0]} was not done after {deadline:g} s, and was stopped; see --deadline") from None
    except ProcessFailed as error:
        raise Unknown(str(error)) from error
    if done.status not in statuses:
        raise Unknown(f"{argv[0]} {how_it_ended(done)}")
    return done


def require(program: str) -> None:
    """Missing, with how to get it."""
    if shutil.which(program) is None:
        raise Missing(
            f"{program} is not on PATH; `nix develop` in the fleet has it, and so has `nix shell nixpkgs#{program}`"
        )


def how_it_ended(done: Completed) -> str:
    ending = f"was killed by signal {-done.status}" if done.status < 0 else f"ended with status {done.status}"
    return f"{ending}{last_words(done)}"


def last_words(done: Completed) -> str:
    """What it said on stderr, or else on stdout, as far as that is short."""
    text = " ".join((done.stderr.strip() or done.stdout.strip()).split())
    return f": {text[:_SHOWN]}" if text else ""


def shares(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many files as one call takes."""
    for start in range(0, len(words), _AT_ONCE):
        yield words[start : start + _AT_ONCE]


def file_of(word: str, asked: Collection[str]) -> str | None:
    """The file that a tool means, None where it is none that it was asked about."""
    file = word.removeprefix("./")
    return file if file in asked else None
