"""Facts of machines that run NixOS."""

from typing import TypedDict

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.machine import revision_of


class System(TypedDict):
    """`booted` differs from `path` when the machine has switched since it booted; `revision` may be None."""

    path: str
    booted: str | None
    hostname: str
    revision: str | None


class CurrentSystem(FactBase[System | None]):
    """
    Returns what runs on a NixOS machine, None elsewhere:

    .. code:: python

        {"path": "/nix/store/…-nixos-system-dev-25.11", "booted": "/nix/store/…", "hostname": "dev",
         "revision": "4f2c…"}
    """

    @override
    def command(self) -> str:
        return (
            "if [ -e /run/current-system ]; then "
            "readlink -e /run/current-system; readlink -e /run/booted-system || echo; "
            "cat /proc/sys/kernel/hostname; nixos-version --json 2>/dev/null || echo; fi"
        )

    @override
    def process(self, output: list[str]) -> System:
        if len(output) < 3:
            raise FactProcessError(f"expected path, booted path and hostname, got {output!r}")
        return System(
            path=output[0],
            booted=output[1] or None,
            hostname=output[2],
            revision=revision_of("\n".join(output[3:])),
        )
