"""What a script of ours prints on a machine: `NAME=VALUE`, a line each."""

from collections.abc import Iterable, Mapping

from nixherd.base.errors import FleetError


def values_of(lines: Iterable[str], *needed: str, whose: str = "machine", may_be_empty: bool = False) -> dict[str, str]:
    """The values by name. FleetError when one of `needed` is missing or, unless it `may_be_empty`, empty."""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    if missing := [name for name in needed if not (name in values if may_be_empty else values.get(name))]:
        raise FleetError(f"no {', '.join(missing)} in what the {whose} says of itself")
    return values


def below(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    """Those whose names begin with `prefix`, by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
