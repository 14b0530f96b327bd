"""Facts of homes that Home Manager lays out."""

from typing import TypedDict

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.base import Fact
from facts.generations import ProfileGenerations
from nixherd.deploy.protocol import part
from nixherd.fleet.revisions import noted_of

# Where Home Manager keeps its generations, newer and older.
_PROFILE = """
profile="${XDG_STATE_HOME:-$HOME/.local/state}/nix/profiles/home-manager"
[ -e "$profile" ] || profile="/nix/var/nix/profiles/per-user/$(id -un)/home-manager"
"""


class HomeState(TypedDict):
    """`current` is the store path of the generation that the home is, None for one that was never activated.

    `revision` is the fleet's that it is of, by the home's own note of that path, None where that is not known.
    """

    current: str | None
    revision: str | None
    user: str
    hostname: str
    boot_id: str


class Home(Fact[HomeState | None]):
    """
    Returns a HomeState of the user who asks:

    .. code:: python

        {"current": "/nix/store/…-home-manager-generation", "revision": "4f2c…", "user": "abl030",
         "hostname": "caddy", "boot_id": "0ea6…"}
    """

    @override
    def command(self) -> str:
        return f"""{_PROFILE}
echo "current=$(readlink -e "$profile")"
kind=home
{part("revisions.sh")}
noted_of "$(readlink -e "$profile")"
echo "revision=$noted"
echo "user=$(id -un)"
echo "hostname=$(cat /proc/sys/kernel/hostname)"
echo "boot_id=$(cat /proc/sys/kernel/random/boot_id)"
"""

    @override
    def process(self, output: list[str]) -> HomeState:
        values = dict(line.split("=", 1) for line in output if "=" in line)
        if missing := [name for name in HomeState.__annotations__ if name not in values]:
            raise FactProcessError(f"no {', '.join(missing)} in what the home says of itself")
        return HomeState(
            current=values["current"] or None,
            revision=noted_of(values["current"] or None, values["revision"]),
            user=values["user"],
            hostname=values["hostname"],
            boot_id=values["boot_id"],
        )


class Generations(ProfileGenerations):
    """
    Returns the generations of the home of the user who asks, oldest first:

    .. code:: python

        [{"number": 1, "path": "/nix/store/…", "built": "2026-11-28T10:00:00+00:00", "current": True}]
    """

    before = _PROFILE
    profile = '"$profile"'
