"""Where a machine on the same network has seen a card: what tables and leases say, and what hostile ones do not."""

import json
import os
import secrets
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.locate import neighbours
from nixherd.locate.neighbours import Neighbour, Sure, parse

MAC = "bc:24:11:00:01:10"
TOKEN = "5f0c1d2e3a4b5c6d"
NOW = 1_790_000_000


def told(end: bool = True, **parts: str) -> list[tuple[str, Sure]]:
    """What is known of MAC when these parts are said, the likeliest first."""
    parts = {"now": f"{NOW}\n", **parts, **({"end": ""} if end else {})}
    found = parse("".join(f"\n{TOKEN} {kind}\n{text}\n" for kind, text in parts.items()), TOKEN)
    return [(each.address, each.sure) for each in neighbours.of(MAC.upper(), found or ())]


def test_a_neighbour_table() -> None:
    said = f"""\
10.0.0.9 dev br0 lladdr {MAC} STALE
10.0.0.5 dev br0 lladdr {MAC} REACHABLE
10.0.0.6 dev br0 lladdr {MAC} ref 1 used 12/8/4 probes 1 DELAY
10.0.0.7 dev br0 lladdr {MAC} FAILED
10.0.0.8 dev br0  INCOMPLETE
10.0.0.4 dev br0 lladdr bc:24:11:00:01:11 REACHABLE
fe80::be24:11ff:fe00:110 dev br0 lladdr {MAC} router REACHABLE
2001:db8::110 dev br0 lladdr {MAC} extern_learn PERMANENT proto zebra
10.0.0.3 dev br0 FAILED
"""
    assert told(neighbours=said) == [
        ("10.0.0.5", Sure.SEEN),
        ("10.0.0.6", Sure.SEEN),
        ("fe80::be24:11ff:fe00:110", Sure.SEEN),
        ("2001:db8::110", Sure.SEEN),
        ("10.0.0.9", Sure.STALE),
    ]
    assert neighbours._neighbours([said.splitlines()[6]], None).__next__().card == "br0"


def test_the_kernels_older_table() -> None:
    said = f"""\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.5         0x1         0x2         {MAC}     *        br0
10.0.0.6         0x1         0x0         00:00:00:00:00:00     *        br0
10.0.0.7         0x1         0x6         {MAC}     *        br0
"""
    assert told(arp=said) == [("10.0.0.5", Sure.STALE), ("10.0.0.7", Sure.STALE)]
    assert told(arp=said, neighbours=f"10.0.0.5 dev br0 lladdr {MAC} REACHABLE")[0] == ("10.0.0.5", Sure.SEEN)


def test_the_leases_of_dnsmasq() -> None:
    said = f"""\
{NOW + 60} {MAC} 10.0.0.5 dev ff:11:00:01:10:00:01:00:01
0 {MAC} 10.0.0.6 * *
{NOW - 60} {MAC} 10.0.0.7 dev *
duid 00:01:00:01:2c:ab:cd:ef:bc:24:11:00:01:10
{NOW + 60} 1114384 2001:db8::110 dev 00:01:00:01:2c:ab
"""
    assert told(dnsmasq=said) == [("10.0.0.5", Sure.LEASED), ("10.0.0.6", Sure.LEASED)]


def test_the_leases_of_isc_dhcpd() -> None:
    """A journal of blocks: the last one of an address counts; what the end of a file begins with is half of one."""

    def lease(address: str, ends: str, state: str = "active", mac: str = MAC) -> str:
        card = f"  hardware ethernet {mac};\n" if mac else ""
        return (
            f"lease {address} {{\n  starts 4 2026/09/20 10:00:00;\n  ends {ends};\n  cltt 4 2026/09/20 10:00:00;\n"
            f'  binding state {state};\n  next binding state free;\n{card}  client-hostname "dev";\n}}\n'
        )

    assert NOW == 1_790_000_000  # 2026/09/21 14:13:20 UTC
    said = [
        f"  binding state active;\n  hardware ethernet {MAC};\n}}\n",
        lease("10.0.0.5", "1 2026/09/21 14:13:21"),
        lease("10.0.0.6", "never"),
        lease("10.0.0.7", "1 2026/09/21 14:13:19"),
        lease("10.0.0.8", f"epoch {NOW + 60}") + lease("10.0.0.8", f"epoch {NOW + 60}", "free"),
        lease("10.0.0.9", "9 9999/99/99 99:99:99") + lease("10.0.0.10", "never", mac="bc:24:11:00:01:11"),
        lease("10.0.0.11", f"epoch {NOW + 60}; # Mon Sep 21", mac=MAC.upper()).replace("21;", "21"),
        lease("10.0.0.12", "never", mac="") + lease("10.0.0.13", "never").removesuffix("}\n"),
    ]
    addresses = ["10.0.0.5", "10.0.0.6", "10.0.0.11"]
    assert told(isc="".join(said)) == [(address, Sure.LEASED) for address in addresses]


def test_a_server_that_runs_says_where_its_leases_are(tmp_path: Path) -> None:
    """By its arguments, or by the file of options that they name; nothing else is read as one."""
    leases, conf = tmp_path / "my leases", tmp_path / "conf"
    conf.write_text(f"# x\ndhcp-leasefile={leases}\n")
    leases.write_text(f"0 {MAC} 10.0.0.5 * *\n")
    isc = tmp_path / "isc"
    isc.write_text(f"lease 10.0.0.6 {{\n  ends never;\n  binding state active;\n  hardware ethernet {MAC};\n}}\n")
    os.mkfifo(tmp_path / "pipe")
    script = neighbours.look(TOKEN).rpartition("\n{\n")[0]
    for words, address in (
        (["dnsmasq", f"--dhcp-leasefile={leases}"], "10.0.0.5"),
        (["dnsmasq", "-l", str(leases)], "10.0.0.5"),
        (["dnsmasq", "-k", "-C", str(conf)], "10.0.0.5"),
        (["dnsmasq", f"--conf-file={conf}"], "10.0.0.5"),
        (["dhcpd", "-4", "-lf", str(isc), "eth0"], "10.0.0.6"),
        (["dhcpd", "-lf", str(tmp_path / "pipe")], ""),
        (["dnsmasq", "-l", "relative", "--dhcp-leasefile", "/nonexistent"], ""),
    ):
        argv = ["sh", "-c", f"{script}\npart now; running; part end"]
        given = "".join(f"{word}\n" for word in words)
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=10, check=True)
        found = parse(done.stdout, TOKEN)
        assert [each.address for each in found or ()] == ([address] if address else []), words


def test_the_leases_of_kea() -> None:
    """A journal: the last line of an address counts, also when it gives it back."""
    head = (
        "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id"
    )
    said = f"""\
{head}
10.0.0.5,{MAC},01:{MAC},3600,{NOW + 60},1,0,0,dev,0,,0
10.0.0.6,{MAC},,3600,{NOW + 60},1,0,0,,0,,0
10.0.0.6,{MAC},,3600,{NOW + 90},1,0,0,,2,,0
10.0.0.7,{MAC},,3600,{NOW - 60},1,0,0,,0,,0
10.0.0.8,{MAC},,0,0,1,0,0,,0,,0
10.0.0.9,{MAC},,3600,{NOW + 60},1,0,0,a&#x2cb,1,,0
"""
    assert told(kea4=said) == [("10.0.0.5", Sure.LEASED)]
    six = f"2001:db8::110,00:01,3600,{NOW + 60},1,3600,0,1,128,0,0,dev,{MAC},0,,1,0,0"
    assert told(kea6=six) == [("2001:db8::110", Sure.LEASED)]


def test_the_leases_of_systemd_networkd() -> None:
    card = [0xBC, 0x24, 0x11, 0x00, 0x01, 0x10]
    ends = {"ExpirationUSec": 1, "ExpirationRealtimeUSec": (NOW + 60) * 1_000_000}
    leases = [
        {"ClientId": [255, 1], "Address": [10, 0, 0, 5], "HardwareAddressType": 1, "HardwareAddressLength": 6}
        | {"HardwareAddress": [*card, *[0] * 10], "Hostname": "dev"}
        | ends,
        {"ClientId": [1, *card], "Address": [10, 0, 0, 6], **ends},
        {"ClientId": [1, *card], "Address": [10, 0, 0, 7], "ExpirationRealtimeUSec": (NOW - 60) * 1_000_000},
        {"ClientId": [1, *card], "Address": [10, 0, 0, 999]},
        {"ClientId": [1, *card], "Address": "10.0.0.8"},
        "no lease",
    ]
    said = json.dumps({"BootID": "x", "Address": [10, 0, 0, 1], "PrefixLength": 24, "Leases": leases})
    assert told(networkd=said) == [("10.0.0.5", Sure.LEASED), ("10.0.0.6", Sure.LEASED)]
    for other in ("", "[]", "{}", '{"Leases": 5}', "[" * 100_000, '{"Leases": [{"Address": [1e999]}]}'):
        assert told(networkd=other) == []


@pytest.mark.parametrize(
    "line",
    [
        "10.0.0.5;reboot dev br0 lladdr {mac} REACHABLE",
        "-oProxyCommand=x dev br0 lladdr {mac} REACHABLE",
        "10.0.0.5/8 dev br0 lladdr {mac} REACHABLE",
        "fe80::1%eth0 dev br0 lladdr {mac} REACHABLE",
        "localhost dev br0 lladdr {mac} REACHABLE",
        "10.0.0.5 dev br0 lladdr REACHABLE",
        "10.0.0.5 lladdr",
        "lladdr {mac} REACHABLE",
    ],
)
def test_what_is_no_address_is_none(line: str) -> None:
    assert told(neighbours=line.format(mac=MAC)) == []


def test_who_does_not_come_to_an_end_has_said_nothing() -> None:
    line = f"10.0.0.5 dev br0 lladdr {MAC} REACHABLE"
    assert told(neighbours=line, end=False) == []
    assert parse(f"end\nnow\n{line}\nneighbours", TOKEN) is None
    assert told(neighbours=f"some shell's banner\n{line}\nother-token end") == [("10.0.0.5", Sure.SEEN)]


@given(st.dictionaries(st.sampled_from([*neighbours._READERS, "now"]), st.text(max_size=200)))
def test_whatever_it_says_is_an_address_or_nothing(parts: dict[str, str]) -> None:
    said = "".join(f"\n{TOKEN} {kind}\n{text}\n" for kind, text in parts.items()) + f"\n{TOKEN} end\n"
    for each in parse(said, TOKEN) or ():
        assert isinstance(each, Neighbour)


def test_what_this_machine_answers() -> None:
    """The script as every shell runs it; it reads, and says so to its end."""
    token = secrets.token_hex(8)
    done = subprocess.run(["sh", "-c", neighbours.look(token)], capture_output=True, text=True, check=False)
    found = parse(done.stdout, token)
    assert found is not None, done
    assert "'" not in neighbours.look(token), "it stands in these for any login shell"
