"""The host keys of the fleet: which one is pinned for a host, which private half is kept here, and whose a key is."""

from contextlib import suppress
from pathlib import Path, PurePosixPath

from nixherd.base.errors import FleetError
from nixherd.base.run import Run
from nixherd.base.ssh_keys import HOST_KEY, KeyPair, generate_ed25519, pair_of, same_key
from nixherd.fleet.models import Fleet

PRIVATE = PurePosixPath(HOST_KEY).name
PUBLIC = f"{PRIVATE}.pub"  # for people only


class HostKeys:
    """The keys by host id. The private half of one generated for a machine is kept until hosts.nix pins it."""

    def __init__(self, fleet: Fleet, run: Run) -> None:
        self.fleet = fleet
        self._run = run
        self._told: dict[str, str] = {}
        self._forgotten: dict[str, str] = {}
        """the public halves of those that hosts.nix pins since this run began"""

    def private_key_file(self, host_id: str) -> Path:
        return self._run.state_of(host_id).directory / PRIVATE

    def held(self, host_id: str) -> KeyPair | None:
        """The key generated for this host or put here by the operator, or None if there is none (yet).

        FleetError when others can read it, or no machine could use it.
        """
        path = self.private_key_file(host_id)
        try:
            private, mode = path.read_text(errors="replace"), path.stat().st_mode & 0o777
        except FileNotFoundError:
            return None
        if mode & 0o077:
            raise FleetError(f"{path}: others may read this private key (mode {mode:04o}); chmod 600 it")
        try:
            return pair_of(private, self._comment(host_id))
        except ValueError as error:
            raise FleetError(f"{path}: {error}; put the host's ed25519 private key there, or move it away") from None

    def ensure(self, host_id: str) -> KeyPair:
        """The key that is kept here; generated now if there is none."""
        pair = self.held(host_id)
        if pair is None:
            pair = generate_ed25519(self._comment(host_id))
            state = self._run.state_of(host_id)
            state.note(PRIVATE, pair.private_openssh)
            state.note(PUBLIC, pair.public + "\n")
        return pair

    def forget(self, host_id: str) -> None:
        """Delete both halves here; the private one first. The key stays the host's own for the rest of this run."""
        with suppress(FleetError):  # one that cannot be used is nobody's
            if held := self.held(host_id):
                self._forgotten[host_id] = held.public
        for name in (PRIVATE, PUBLIC):
            self._run.state_of(host_id).forget(name)

    def pinned(self, host_id: str) -> str | None:
        """The installed machine's host key: the one in hosts.nix, else the one generated here, else None."""
        if public := self._in_hosts_nix(host_id):
            return public
        held = self.held(host_id)
        return held.public if held else None

    def problem(self, host_id: str) -> str | None:
        """Why this host cannot be installed with the key that hosts.nix pins; None when it can."""
        try:
            public, held = self._in_hosts_nix(host_id), self.held(host_id)
        except FleetError as error:
            return str(error)
        if public is None or (held and same_key(public, held.public)):
            return None
        what = f"{host_id}.publicKey: its private half is not in {self.private_key_file(host_id)}"
        remedy = "put it there, or a placeholder here to have a new key made"
        return f"{self.fleet.path}/{self.fleet.file}: {what}; {remedy}"

    def to_install(self, host_id: str) -> KeyPair:
        """The host key that the new system gets: generated here unless it was before.

        FleetError when hosts.nix pins another key than the one whose private half is kept here.
        """
        if problem := self.problem(host_id):
            raise FleetError(problem)
        return self.ensure(host_id)

    def owner(self, host_key: str, *, but: str) -> str | None:
        """The host, but for this one, whose key this is: pinned in hosts.nix, or generated here for it."""
        for other in self.fleet.hosts.values():
            if self.fleet.machine_of(other.id) == self.fleet.machine_of(but):
                continue
            known = [self._in_hosts_nix(other.id)]
            with suppress(FleetError):  # a key that cannot be used is nobody's
                held = self.held(other.id)
                known.append(held.public if held else None)
            if any(key and same_key(key, host_key) for key in known):
                return other.id
        return None

    def first_to_tell(self, fingerprint: str, guest: str) -> str:
        """The guest that told the key with this fingerprint first in this run; no other one has it as well."""
        return self._told.setdefault(fingerprint, guest)  # which is atomic

    def _in_hosts_nix(self, host_id: str) -> str | None:
        """The key that hosts.nix pins: as it was read, or as this run has written it since."""
        return self.fleet.hosts[host_id].public_key or self._forgotten.get(host_id)

    def _comment(self, host_id: str) -> str:
        return f"root@{self.fleet.hosts[host_id].hostname}"
