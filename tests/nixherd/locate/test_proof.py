"""What a machine shows of itself, and whether that is the guest that was asked."""

import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.files import BOOT_ID
from nixherd.locate.proof import PLANT, Asked, Shown, disproof, look, parse, planted
from nixherd.proxmox.config import VmConfig
from tests.nixherd.proxmox.fleets import DEV

MAC, OTHER_MAC = "bc:24:11:00:01:10", "bc:24:11:00:01:11"
UUID = "6d2f9a1c-3b47-4e5a-8c11-0f2e3d4c5b6a"
ASKED = Asked("vm 110 (dev)", "prom", 110, MAC, UUID)
TOKEN = "0123456789abcdef"


def shown(*macs: str, uuid: str | None = None) -> Shown:
    return Shown("boot", frozenset(macs), uuid, "ID=nixos")


def test_what_was_asked_is_as_the_configuration_has_it() -> None:
    config = VmConfig(
        {"net0": f"virtio={MAC.upper()},bridge=vmbr0", "smbios1": f"uuid={UUID},manufacturer=UUVNVQ,base64=1"}
    )
    assert Asked.of(DEV, "prom", config) == ASKED
    bare = Asked.of(DEV, "prom", VmConfig({}))
    assert (bare.mac, bare.uuid) == (None, None)


@pytest.mark.parametrize("macs", [(MAC,), (OTHER_MAC, MAC)])
def test_a_machine_with_the_card_may_be_the_guest(macs: tuple[str, ...]) -> None:
    assert disproof(ASKED, shown(*macs)) is None


@pytest.mark.parametrize(
    ("macs", "there_are"), [((), "none"), ((OTHER_MAC,), OTHER_MAC), (("\x1b[31m",), "none"), ((f"{MAC}:00",), "none")]
)
def test_one_without_is_another(macs: tuple[str, ...], there_are: str) -> None:
    assert disproof(ASKED, shown(*macs)) == f"no card of it has net0's MAC {MAC} (there are: {there_are})"


def test_the_uuid_where_the_kernel_shows_it() -> None:
    swapped = str(uuid.UUID(bytes_le=uuid.UUID(UUID).bytes))
    for alike in (UUID, UUID.upper(), swapped, None, "Not Settable", str(uuid.UUID(int=0)), "f" * 32):
        assert disproof(ASKED, shown(MAC, uuid=alike)) is None
    other = str(uuid.uuid4())
    assert disproof(ASKED, shown(MAC, uuid=other)) == f"its SMBIOS UUID is {other}, not {UUID}"
    for unknown in (None, "", "none"):
        asked = Asked("vm 110 (dev)", "prom", 110, MAC, unknown)
        assert disproof(asked, shown(MAC, uuid=other)) is None


def test_where_no_card_is_known_none_is_compared() -> None:
    assert disproof(Asked("ct 210 (dns)", "prom", 210, None, None, has_agent=False), shown()) is None


# The script


@pytest.mark.parametrize("name", ["sh", "dash", "bash", "busybox", "zsh", "ksh"])
def test_every_shell_shows_what_this_machine_is(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")
    argv = [name, *(["sh"] if name == "busybox" else []), "-c", look(TOKEN)]
    said = subprocess.run(argv, capture_output=True, text=True, env={}, check=False)  # no PATH: nothing else runs
    found = parse(said.stdout, TOKEN)
    assert found is not None, said
    assert found.boot_id == Path(BOOT_ID).read_text().strip()
    cards = [card for card in Path("/sys/class/net").iterdir() if not (card / "tun_flags").exists()]
    macs = {(card / "address").read_text().strip() for card in cards if (card / "address").exists()}
    assert found.macs == {mac for mac in macs if mac.strip("0:")}
    assert found.os_release.splitlines()[0].strip() == Path("/etc/os-release").read_text().splitlines()[0].strip()
    assert "'" not in look(TOKEN), "it stands in quotes for the login shell"


LINES = [
    f"{TOKEN} release ID=nixos",
    f"{TOKEN} boot_id b00",
    f"{TOKEN} mac {MAC.upper()}",
    f"{TOKEN} mac 00:00:00:00:00:00",
]


@given(st.lists(st.text().filter(lambda text: TOKEN not in text), max_size=8), st.data())
def test_what_a_talkative_shell_says_beside_it_changes_nothing(noise: list[str], data: st.DataObject) -> None:
    lines = [*LINES, f"{TOKEN} end -"]
    for text in noise:
        lines.insert(data.draw(st.integers(0, len(lines))), text.replace("\n", " "))
    assert parse("\n".join(lines), TOKEN) == Shown("b00", frozenset({MAC}), None, "ID=nixos")


@pytest.mark.parametrize("said", ["", "\n".join(LINES), f"{TOKEN} end -", f"{TOKEN} boot_id \n{TOKEN} end -"])
def test_half_an_answer_is_none(said: str) -> None:
    assert parse(said, TOKEN) is None


def test_a_word_is_written_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    script = PLANT.replace("/run/", f"{tmp_path}/")
    file = tmp_path / Path(planted("name")).name

    def plant(word: str) -> int:
        return subprocess.run(["sh", "-c", script], input=f"name {word}\n", text=True, check=False, env={}).returncode

    assert plant("word") == 0
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("word\n", 0o600)
    assert plant("another") != 0
    assert file.read_text() == "word\n"
