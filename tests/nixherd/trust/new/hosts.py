"""New hosts for tests: one of each kind, and any that could be asked for."""

from dataclasses import replace

from hypothesis import strategies as st

from nixherd.trust.new.host import SIZES, Guest, Keys, Kind, Machine, NewHost
from tests.conftest import MASTER_KEY

VM = NewHost(
    id="web",
    kind=Kind.VM,
    alias="web",
    user="abl030",
    home_directory="/home/abl030",
    keys=Keys((MASTER_KEY,), "masterKeys"),
    directory="hosts/web",
    state_version="25.11",
    guest=Guest(SIZES["small"], 111, 2, 2048, "16G"),
)

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True).filter(lambda name: not name.isdigit())
SECRETS = st.from_regex(r"[a-z][a-z0-9_.-]{0,6}(/[a-z][a-z0-9_-]{0,6})?", fullmatch=True)
PURPOSES = st.text(st.characters(exclude_categories=("C", "Z")), max_size=12) | st.sampled_from(
    ["", 'a "quoted" ${hole}', "''two''", "# none", "*/ end", "ünïcödé ☃", "\\back"]
)


@st.composite
def hosts(draw: st.DrawFn) -> NewHost:
    """Any that `decide` could come to."""
    name, kind = draw(LABELS), draw(st.sampled_from(list(Kind)))
    size = draw(
        st.sampled_from([size for size in SIZES.values() if (size.kind.value == "lxc") is (kind is Kind.CONTAINER)])
    )
    guest = Guest(
        size,
        vmid=draw(st.integers(100, 999_999)),
        cores=draw(st.integers(1, 64)),
        memory=draw(st.integers(2048, 1 << 20)),
        disk=f"{draw(st.integers(8, 4000))}G",
        storage=draw(st.none() | st.just("local-lvm")),
        pool=draw(st.none() | st.just("nixherd")),
        pci=("igpu",) if size.name == "gpu" else (),
        archive="local:vztmpl/nixos.tar.xz" if kind is Kind.CONTAINER else None,
    )
    machine = draw(st.sampled_from([Machine(), Machine("seabios", "/dev/vda", "template 9002 on prom")]))
    return replace(
        VM,
        id=name,
        kind=kind,
        alias=draw(st.just(name) | LABELS),
        user=draw(st.sampled_from(["abl030", "root", "first.last", "with-dash"])),
        directory=f"{draw(st.sampled_from(['hosts', 'machines/here']))}/{name}",
        keys=draw(st.sampled_from([VM.keys, Keys((MASTER_KEY,)), Keys((MASTER_KEY, f"{MASTER_KEY}2"))])),
        purpose=draw(PURPOSES),
        machine=machine if kind is Kind.VM else Machine(),
        guest=guest if kind.is_guest else None,
        home=kind is Kind.HOME or draw(st.booleans()),
        home_imports=draw(
            st.sampled_from([(), ("../common/home.nix",), ("../common/home.nix", "../common/shell.nix")])
        ),
        sudo_passwordless=draw(st.booleans()),
        secrets=() if kind is Kind.HOME else tuple(draw(st.lists(SECRETS, max_size=3, unique=True))),
        root_keys=draw(st.booleans()),
    )
