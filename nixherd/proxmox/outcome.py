"""What came of an action, or what one would do: its steps, and in words what was seen beside them."""

from collections.abc import Iterable, Mapping

from nixherd.proxmox.steps import Step


class Outcome(tuple[Step, ...]):
    """Steps like any other, in order. Where there are none, `why` says what was found instead: "it runs".

    `found` is what was read back in the end, by name, as JSON has it; `lines` say the same to people.
    """

    why: str
    found: Mapping[str, object]
    lines: tuple[str, ...]

    def __new__(
        cls,
        steps: Iterable[Step] = (),
        *,
        why: str = "",
        found: Mapping[str, object] | None = None,
        lines: Iterable[str] = (),
    ) -> "Outcome":
        made = super().__new__(cls, steps)
        made.why, made.found, made.lines = why, found or {}, tuple(lines)
        return made


def nothing(why: str) -> Outcome:
    """No step, and why none is needed."""
    return Outcome(why=why)


def why_nothing(steps: Iterable[Step]) -> str:
    """Why there is nothing to do, empty where nobody said."""
    return steps.why if isinstance(steps, Outcome) else ""
