"""A command of the operator's, by a real shell: its words, its status, and an end that nobody saw."""

import subprocess
from typing import Any

import pytest

from nixherd.base.errors import EndUnknown, FleetError, NotSent, exit_of
from nixherd.base.process import Completed
from nixherd.deploy.command import Said, run_command


class Shell:
    """As much of a machine as is used: a shell here, or what goes wrong instead."""

    id = "dev"

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem

    def run(self, script: str, **_: Any) -> Completed:
        if self.problem:
            raise self.problem
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        # as pyinfra gives it: lines, and success or failure alone
        return Completed(
            "\n".join(done.stdout.splitlines()), "\n".join(done.stderr.splitlines()), bool(done.returncode)
        )


def result(line: str, problem: Exception | None = None) -> Said:
    return run_command(Shell(problem), line, sudo=False, deadline=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("echo a; echo b >&2", Said(0, "a", "b")),
        ("printf 'no end'", Said(0, "no end", "")),
        ("exit 7", Said(7, "", "")),
        ("printf '\\n\\n3\\n'; false", Said(1, "\n\n3", "")),
        ("kill -9 $$", None),
        ("cat <<X\n$(echo here)\nX\n", Said(0, "here", "")),
        ("true # a comment", Said(0, "", "")),
        ("if", None),
        ("echo )", None),
    ],
)
def test_its_words_and_its_status(line: str, expected: Said | None) -> None:
    if expected is not None:
        assert result(line) == expected
        return
    with pytest.raises(FleetError, match="dev: the command did not come to its end"):
        result(line)


def test_what_was_not_sent_has_not_begun_and_a_lost_answer_is_unknown() -> None:
    with pytest.raises(FleetError, match="dev: it was not told: gone") as not_sent:
        result("true", NotSent("gone"))
    assert not isinstance(not_sent.value, EndUnknown)
    with pytest.raises(EndUnknown, match="is not known") as lost:
        result("true", OSError("gone"))
    assert exit_of(lost.value, changed=True) == 5
