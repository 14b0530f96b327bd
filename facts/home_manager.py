"""Facts of homes that Home Manager lays out."""

from typing import TypedDict

from typing_extensions import override

from facts.base import Fact
from facts.generations import ProfileGenerations
from nixherd.deploy.running import HOME_PROFILE, home_script, parse_home


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
        return home_script()

    @override
    def process(self, output: list[str]) -> HomeState:
        home = parse_home(output)
        users = [line.removeprefix("user=") for line in output if line.startswith("user=")]
        return HomeState(
            current=home.current,
            revision=home.revision,
            user=users[-1],
            hostname=home.hostname,
            boot_id=home.boot_id,
        )


class Generations(ProfileGenerations):
    """
    Returns the generations of the home of the user who asks, oldest first:

    .. code:: python

        [{"number": 1, "path": "/nix/store/…", "built": "2026-11-28T10:00:00+00:00", "current": True}]
    """

    before = HOME_PROFILE
    profile = '"$profile"'
