"""Where a machine may answer that is installed and whose key is pinned: names first, the hypervisor when they fail.

Each source is asked when all before it have failed: what the fleet's files say, the hypervisor (the agent's word, a
fixed address in the guest's configuration), tables and leases of machines on its network, and a search of a network
where the definitions tell us to. None of them is believed to be more than where to look: the pinned key decides. For
what wipes a machine it does not, so that is found by `nixherd.locate.reach` alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nixherd.base.errors import AgentUnavailable, ApiError, FleetError, NoAgent
from nixherd.base.run import Run
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Host, Vm
from nixherd.locate import keyscan, neighbours, reach
from nixherd.locate.neighbours import Neighbour, Sightings
from nixherd.locate.proof import Asked, owner_of_address
from nixherd.locate.reach import Absent, Epoch, Hints, Look, Place, Running, is_proven_by_agent
from nixherd.proxmox.guest.identity import address_of, label, plain_address
from nixherd.proxmox.guest.observe import interfaces_of
from nixherd.proxmox.hypervisor import Hypervisor

Ask = Callable[[Host], tuple[Neighbour, ...]]
"""A host's neighbours, asked of itself; FleetError when it does not tell"""


@dataclass
class Search:
    """One look for one host. `ask` is None where no other host may be asked, as for who is asked itself.

    `hints.address` takes the place of its names; `before` is where it answered before, which is tried first. What a
    source did not say, and why, is in `reasons`; `problem` is why the hypervisor could not be asked. A search of a
    network is told.
    """

    hypervisor: Hypervisor
    keys: HostKeys
    sightings: Sightings
    run: Run
    host: Host
    hints: Hints
    how: Look
    vm: Vm
    key: str
    tell: Callable[[str], None]
    ask: Ask | None = None
    before: str | None = None
    reasons: list[str] = field(default_factory=list)
    problem: FleetError | None = None
    is_found: bool = False
    """whether it has shown its key at one of the places, and let nobody in, so that no other source is asked"""
    _tried: set[str] = field(default_factory=set)
    _gateways: frozenset[str] = frozenset()

    @classmethod
    def of(cls, keys: HostKeys, host: Host, hints: Hints, how: Look, **parts: Any) -> "Search | None":
        """The search for a guest with a pinned key; None for any other, which has its names alone, or its agent's word.

        `parts` are the other fields.
        """
        vm, key = keys.fleet.vm_of(host.id), keys.pinned(host.id)
        if vm is None or key is None or hints.host_key is not None:
            return None
        return cls(keys=keys, host=host, hints=hints, how=how, vm=vm, key=key, **parts)

    def places(self) -> Iterator[Place]:
        """The places to try, in order; another source is asked only when they are asked for.

        Raises Absent when the hypervisor says that the machine does not exist, Refused when its guest tells what cannot
        be. While nothing is known, nothing is yielded, and `reasons` say why.
        """
        vm = self.vm
        card = reach.declared_card(vm)
        self._gateways = neighbours.gateways(vm)
        named = [self.hints.address] if self.hints.address else reach.addresses(self.host)
        yield from self._new([self.before] if self.before else [], card)
        yield from self._new(named, card)
        if not self.hints.address:
            yield from self._new(self._declared(vm), card)
        if self.is_found:
            return
        guest = self._running(vm)
        if guest is not None:
            self._gateways = neighbours.gateways(vm, guest.config)
            told = self._by_hypervisor(guest)
            if told is not None:
                yield from (place for place in told if self._is_new(place.address))
                return
            card = Asked.of(vm, guest.node, guest.config, has_agent=False)
            fixed = neighbours.configured(vm, guest.config)
            yield from self._new(self._believed(fixed, "its configuration", card), card)
        for source in (self._seen(vm, card), self._discovered(vm, card)):
            for place in source:
                yield place
                if self.is_found:
                    return

    # Sources

    def _running(self, vm: Vm) -> Running | None:
        """The guest as the hypervisor shows it; None where that cannot be asked, or may not show it."""
        try:
            return reach.running(self.hypervisor, vm)
        except Absent:
            raise
        except FleetError as error:
            self._not_asked(error)
            return None

    def _by_hypervisor(self, guest: Running) -> list[Place] | None:
        """Where it says that the guest is; None where nobody there knows, and other sources are asked."""
        vm = guest.vm
        try:
            if is_proven_by_agent(vm):
                # an outdated entry of another host hides no guest here: whoever answers proves that it is this one
                how = replace(self.how, progress=self._note)
                return reach.ask_agent(self.hypervisor, self.keys, self.host, guest, how)
            address = address_of(guest.config, interfaces_of(self.hypervisor.client, guest.node, vm))
        except NoAgent:
            self._note(f"{label(vm)} has no guest agent")
            return None
        except AgentUnavailable as error:
            self._note(str(error))
            return None
        except ApiError as error:  # such as one that the token may not ask
            self._not_asked(error)
            return None
        if address is None:
            self._note("the guest has no address yet")
            return None
        card = Asked.of(vm, guest.node, guest.config, has_agent=False)
        return [self._place(each, card) for each in self._believed([address], "the hypervisor", card)]

    def _seen(self, vm: Vm, card: Asked | None) -> Iterator[Place]:
        """Where its network card was seen: from here, and by the hosts that the definitions name for that."""
        ask = self.ask
        hosts = self.hypervisor.fleet.neighbours_of(vm) if ask else ()
        if card is None or card.mac is None:
            if hosts:
                remedy = f"declare {vm.attribute}.networks.net0.mac, or let the token see the guest"
                self._note(f"the MAC of {label(vm)} is not known, so nobody can be asked where it was seen: {remedy}")
            return
        here = "the neighbour table of this machine"
        yield from self._new(self._believed(self.sightings.from_here(card.mac), here, card), card)
        if ask is None:
            return
        for other in hosts:
            try:
                told = ask(other)
            except FleetError as error:
                self._note(self._once(f"{other.id} does not tell its neighbours: {error}", f"{other.id} neither"))
                continue
            found = neighbours.seen_elsewhere(card.mac, told)
            if not found:
                self._note(f"{other.id} has not seen {card.mac} lately")
            yield from self._new(self._believed(found, other.id, card), card)

    def _discovered(self, vm: Vm, card: Asked | None) -> Iterator[Place]:
        """Where its key is shown, in the networks that the definitions let us search."""
        for network in self.hypervisor.fleet.networks_of(vm):
            try:
                open_ = self._listening_in(network)
                found = keyscan.showing(self.key, open_)
            except FleetError as error:
                self._note(f"{network} cannot be searched: {error}")
                continue
            if not found:
                self._note(f"none of the {len(open_)} that answer SSH in {network} shows the key of {self.host.id}")
            yield from self._new(self._believed(found, f"the search of {network}", card), card)

    def _listening_in(self, network: str) -> list[str]:
        """The addresses of a network at which something listens for SSH, searched for once by all hosts."""
        with self.sightings.listening[network] as listening:
            if listening.is_empty:
                self.sightings.require_another_search(network)
                listening.value = keyscan.listening(self._searched(network))
            return listening.value

    def _searched(self, network: str) -> list[str]:
        """The addresses of a network that are tried, which is told."""
        others = [each for host in self.hypervisor.fleet.hosts.values() for each in host.addresses or ()]
        known = {*self.hypervisor.known_addresses, *filter(None, map(plain_address, others))}
        addresses = keyscan.addresses_in([network], known)
        self.tell(f"trying port 22 of the {len(addresses)} addresses in {network}, as the definitions say")
        return addresses

    # What is made of them

    def _new(self, found: Iterable[str], guest: Asked | None) -> Iterator[Place]:
        return (self._place(address, guest) for address in found if self._is_new(address))

    def _place(self, address: str, guest: Asked | None) -> Place:
        return Place(address, Epoch.FINAL, self.key, self.host.user, guest)

    def _is_new(self, address: str) -> bool:
        before = len(self._tried)
        self._tried.add(address)
        return len(self._tried) > before

    def _believed(self, found: Iterable[str], who: str, card: Asked | None) -> Iterator[str]:
        """Those that can be this guest's; which cannot, and why, is a reason."""
        mac = card.mac if card else None
        return self._unowned(found, who, lambda hypervisors, address: owner_of_address(hypervisors, address, mac))

    def _declared(self, vm: Vm) -> Iterator[str]:
        """The definitions' own, judged by what the files say, and by which addresses the nodes have.

        A hypervisor that cannot be asked now is not an obstacle: then it is the endpoint's alone.
        """
        return self._unowned(neighbours.declared(vm), vm.attribute, lambda nodes, address: nodes.get(address))

    def _unowned(
        self, found: Iterable[str], who: str, owner: Callable[[Mapping[str, str], str], str | None]
    ) -> Iterator[str]:
        others, hypervisors = self._others(), dict[str, str]()
        for address in found:
            hypervisors = hypervisors or {**self.hypervisor.known_addresses}
            written = plain_address(address) or address
            gateway = "its gateway" if written in self._gateways else None
            if whose := owner(hypervisors, written) or others.get(written) or gateway:
                self._note(f"{who} says {address}, which {whose} has: left out")
            else:
                yield address

    def _others(self) -> Mapping[str, str]:
        """By address, which other host has it."""
        hosts = (host for host in self.hypervisor.fleet.hosts.values() if host.id != self.host.id)
        return {written: host.id for host in hosts for each in host.addresses or () if (written := plain_address(each))}

    def _not_asked(self, error: FleetError) -> None:
        self.problem = error
        reason = f"the hypervisor cannot be asked: {error}"
        self._note(self._once(reason, "the hypervisor cannot be asked, either"))

    def _once(self, reason: str, later: str) -> str:
        """What many hosts come upon, in full for the first of them."""
        first = self.run.first_to_say(reason, self.host.id)
        return reason if first == self.host.id else f"{later}, for the same reason as {first}"

    def _note(self, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)
