"""Fleets' status made up: one that is plain to change in a test, and a strategy of any that could be."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from nixherd.base.terminal import one_line
from nixherd.overview.document import (
    Deployment,
    Difference,
    Guest,
    HostView,
    Hypervisor,
    Key,
    Kind,
    Mend,
    Mode,
    Overview,
    Reach,
    Reboot,
    Revision,
    Secrets,
    Space,
    State,
    System,
    Units,
    Update,
)

TAKEN = "2026-01-31T12:00:00Z"
HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><svg onload=alert(1)>",
    "javascript:alert(1)", "a | b", 'a"} 1\nnixherd_host_reachable{host="b"} 0', "{{ 7 * 7 }}", "${7*7}", "`id`",
    "\x1b[31mred", "\u202eevil", "\u200b", "é\u0301…", "https://evil.example/", "--help", "'; drop table hosts; --",
    "a\\b", " ", "&lt;b&gt;", "a" * 300,
)  # fmt: skip
SECTIONS = (
    "reach", "key", "revision", "system", "reboot", "units", "recipients", "secrets", "guest", "backups", "update",
)  # fmt: skip


def host(name: str = "web01", **changes: Any) -> HostView:
    """A host of which all is right."""
    right = HostView(
        name,
        name,
        "nixos",
        State.SAME,
        tags=("web",),
        reach=Reach(True, "192.0.2.1", at=TAKEN, age=0),
        key=Key("SHA256:a", "SHA256:a", same=True),
        revision=Revision("b" * 40, "b" * 40, 0),
        system=System("/nix/store/b", "evaluated", "/nix/store/b", "/nix/store/b", "/nix/store/b", True, 41, name),
        reboot=Reboot(pending=False, kernel="6.12.1", next_kernel="6.12.1", uptime=86400),
        units=Units(()),
        secrets=Secrets(recipients=True, decrypted=True, declared=2),
        disks=(Space("/", 1 << 40, 1 << 39),),
        memory=Space("memory", 1 << 33, 1 << 32),
        update=Update(Mode.PUSHED, (Mode.PUSHED,)),
        deployment=Deployment("2026-01-30T12:00:00Z", "ops@desk", "1", 1, "deployed", "b" * 40, "proved"),
    )
    return replace(right, **changes)


def overview(**changes: Any) -> Overview:
    """The status of a fleet with one host of which all is right."""
    return replace(Overview("/fleet", TAKEN, "b" * 40, (host(),), operator="ops@desk", seconds=1.0), **changes)


# Any that could be

_words = st.one_of(
    st.sampled_from(HOSTILE),
    st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
)
_maybe_words = st.none() | _words
_flags = st.sampled_from([None, True, False])
_numbers = st.none() | st.integers(0, 1 << 40)
_times = st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)).map(
    lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ")
)
_lists = st.lists(_words, max_size=3).map(tuple)
_differences = st.builds(
    Difference,
    st.sampled_from(Kind),
    _words,
    st.none() | st.sampled_from(Mend),
    st.none() | st.lists(_words, min_size=1, max_size=3).map(tuple),
)
_guests = st.builds(
    Guest,
    vmid=st.integers(100, 999_999_999),
    name=_words,
    type=st.sampled_from(["qemu", "lxc"]),
    managed=st.booleans(),
    node=_maybe_words,
    power=st.sampled_from([None, "running", "stopped", "paused"]),
    drift=st.none() | _lists,
    remedy=st.sampled_from([None, "apply", "adopt", "by hand"]),
    snapshots=_numbers,
    newest_snapshot=_times,
    oldest_snapshot=_times,
    backups=_numbers,
    newest_backup=_times,
)
_spaces = st.builds(Space, _words, st.integers(0, 1 << 50), st.integers(0, 1 << 50))


def _standing(host: HostView) -> HostView:
    """In the state that its parts come to."""
    if host.reach.answered is False and host.key.same is not False:
        return replace(host, state=State.UNREACHABLE)
    return replace(host, state=State.DIFFERS if host.differences else State.UNKNOWN if host.unknown else State.SAME)


_hosts = st.builds(
    HostView,
    host=_words,
    hostname=_maybe_words,
    kind=st.sampled_from(["nixos", "home"]),
    state=st.just(State.SAME),
    tags=_lists,
    reach=st.builds(Reach, _flags, _maybe_words, _maybe_words, _times, _numbers, _times),
    key=st.builds(Key, _maybe_words, _maybe_words, _flags),
    revision=st.builds(Revision, _maybe_words, _maybe_words, _numbers),
    system=st.builds(
        System, _maybe_words, st.sampled_from([None, "evaluated", "kept"]), _maybe_words, _maybe_words, _maybe_words,
        _flags, _numbers, _maybe_words,
    ),
    reboot=st.builds(Reboot, _flags, _lists, _maybe_words, _maybe_words, _numbers),
    units=st.builds(Units, st.none() | _lists),
    secrets=st.builds(Secrets, _flags, _flags, _numbers, _lists, _lists),
    guest=st.none() | _guests,
    disks=st.lists(_spaces, max_size=2).map(tuple),
    memory=st.none() | _spaces,
    update=st.builds(Update, st.none() | st.sampled_from(Mode), st.just(()), _maybe_words),
    deployment=st.none()
    | st.builds(Deployment, _times, _maybe_words, _maybe_words, _numbers, _maybe_words, _maybe_words,
                st.sampled_from([None, "proved", "told"])),
    differences=st.lists(_differences, max_size=4).map(tuple),
    unknown=st.dictionaries(st.sampled_from(SECTIONS), _words, max_size=4),
).map(_standing)  # fmt: skip


def overviews(most: int = 30) -> st.SearchStrategy[Overview]:
    """Fleets of at most so many hosts, whose names differ also where they are shown."""
    return st.builds(
        Overview,
        fleet=_words,
        taken=_times.filter(bool),
        revision=_maybe_words,
        hosts=st.lists(_hosts, max_size=most, unique_by=lambda each: " ".join(one_line(each.host).split())).map(tuple),
        hypervisor=st.builds(
            Hypervisor,
            st.sampled_from(["answered", "unreachable", "refused", "not asked", "none"]),
            _maybe_words,
            _maybe_words,
        ),
        differences=st.lists(_differences, max_size=2).map(tuple),
        operator=_maybe_words,
        seconds=st.none() | st.floats(0, 1e6),
    )
