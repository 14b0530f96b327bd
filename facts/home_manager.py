"""Facts of homes that Home Manager lays out."""

from typing_extensions import override

from nixherd.base.answers import values_of
from nixherd.deploy.running import HOME_PROFILE, home_script, parse_home
from nixherd.facts.base import Fact
from nixherd.facts.generations import ProfileGenerations


class Home(Fact[dict[str, str | None] | None]):
    """
    Returns what the home of the user who asks is. `current` is the generation's store path, None for a home that was
    never activated; `revision` the fleet's that it is of, by the home's own note of that path:

    .. code:: python

        {"current": "/nix/store/…-home-manager-generation", "revision": "4f2c…", "user": "abl030",
         "hostname": "caddy", "boot_id": "0ea6…"}
    """

    @override
    def command(self) -> str:
        return home_script()

    @override
    def process(self, output: list[str]) -> dict[str, str | None]:
        home, user = parse_home(output), values_of(output)["user"]
        found = {"current": home.current, "revision": home.revision, "user": user}
        return {**found, "hostname": home.hostname, "boot_id": home.boot_id}


class Generations(ProfileGenerations):
    """
    Returns the generations of the home of the user who asks, oldest first:

    .. code:: python

        [{"number": 1, "path": "/nix/store/…", "built": "2026-11-28T10:00:00+00:00", "current": True}]
    """

    before = HOME_PROFILE
    profile = '"$profile"'
