"""The fleet's files as they are now: what may be changed is known to be as new as the repository it comes from."""

import os
import threading

from nixherd.base.errors import FleetError, Refused
from nixherd.base.files import expanded
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import DEFINITIONS, Fleet
from nixherd.fleet.world import Fingerprint, World, look_settled
from nixherd.proxmox.guard.policy import Policy


class Definitions:
    """A fleet and where it comes from. `policy()` is what the guard asks before each changing request."""

    def __init__(self, fleet: Fleet, read: Fingerprint) -> None:
        self.fleet = fleet
        self._read = read
        self._policy = Policy.from_fleet(fleet)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Definitions":
        """Raises as `load_fleet` does."""
        directory = expanded(path).absolute()
        try:
            world = look_settled(directory)  # before the evaluation: what changes meanwhile is noticed next time
        except OSError:
            return cls(load_fleet(directory), frozenset())  # which says what is wrong
        return cls(load_fleet(directory, world), world.fingerprint)

    def policy(self) -> Policy:
        """The policy of the fleet's files as they are now; they are evaluated again when any of them has changed.

        Refused, in one sentence, when that cannot be done, or when they name another hypervisor than before.
        """
        with self._lock:
            now = self._look()
            if now.fingerprint != self._read:
                self._evaluate(now)
            return self._policy

    def _look(self) -> World:
        try:
            return look_settled(self.fleet.path)
        except FleetError as error:
            raise Refused(f"{error}; refusing any change") from error
        except OSError as error:
            why = f"{self.fleet.path} cannot be read any more ({error.strerror})"
            raise Refused(f"{why}; refusing any change") from error

    def _evaluate(self, now: World) -> None:
        try:
            fleet = load_fleet(self.fleet.path, now)
        except FleetError as error:
            first, *rest = str(error).splitlines()
            more = f" (and {len(rest)} more)" if rest else ""
            raise Refused(f"the definitions changed and cannot be used: {first}{more}; refusing any change") from error
        if fleet.endpoint != self.fleet.endpoint or fleet.id != self.fleet.id:
            raise Refused(
                f"{DEFINITIONS} names another fleet or hypervisor than when this run began; refusing any change"
            )
        self._read, self._policy = now.fingerprint, Policy.from_fleet(fleet)
