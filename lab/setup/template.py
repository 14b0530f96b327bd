"""The template's disk: GPT, a real ESP, a root with everything but /usr (machines use the base's, read-only)."""

import os
import shutil
from pathlib import Path

from lab.setup.cache import Cache, call, stamp

SIZE = 4 << 30
ESP = (1 << 20, 64 << 20)  # offset and size, bytes
ROOT_OFFSET = 65 << 20
ROOT_SIZE = SIZE - ROOT_OFFSET - (1 << 20)
OVERLAY = Path(__file__).parent.parent / "guest" / "template"
ENTRY = "title Debian GNU/Linux\noptions root=LABEL=template init=/usr/lib/systemd/systemd\n"


def build(cache: Cache, base: Path) -> Path:
    """Return the raw image, sparse."""
    recipe = stamp([base.name, Path(__file__), OVERLAY])
    return cache.make(f"template-{recipe}.raw", "making the template's disk", lambda path: _image(base, path))


def _image(base: Path, image: Path) -> None:
    root = image.parent / "root"
    _root(base, root)
    with image.open("wb") as file:
        file.truncate(SIZE)
    call(
        ["sgdisk", "--clear", f"--new=1:{ESP[0] >> 9}:+{ESP[1] >> 20}M", "--typecode=1:EF00", "--change-name=1:ESP"]
        + [f"--new=2:{ROOT_OFFSET >> 9}:{(ROOT_OFFSET + ROOT_SIZE >> 9) - 1}", "--typecode=2:8300"]
        + ["--change-name=2:root", image]
    )
    _esp(image)
    call(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "template", "-d", root]
        + ["-E", f"offset={ROOT_OFFSET}", image, f"{ROOT_SIZE >> 10}k"]
    )


def _root(base: Path, root: Path) -> None:
    """Return a file system's content: the base's without /usr, plus the units of a cloud image."""
    root.mkdir()
    for directory in ("etc", "var", "root", "home", "srv", "opt"):
        call(["cp", "-a", base / directory, root / directory])
    for directory in ("usr", "dev", "proc", "sys", "run", "mnt", "boot", "tmp", "nix"):
        (root / directory).mkdir(mode=0o1777 if directory == "tmp" else 0o755)
    (root / "tmp").chmod(0o1777)
    for link in ("bin", "sbin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    for unused in ("var/cache/apt", "var/lib/apt", "var/lib/dpkg", "var/log"):
        shutil.rmtree(root / unused, ignore_errors=True)
    (root / "var/log").mkdir()
    shutil.copytree(OVERLAY, root, dirs_exist_ok=True)
    units = root / "etc/systemd/system"
    for unit, target in (
        ("/usr/lib/systemd/system/qemu-guest-agent.service", "multi-user.target"),
        ("/etc/systemd/system/cloud-init-local.service", "sysinit.target"),
        ("/etc/systemd/system/cloud-final.service", "multi-user.target"),
    ):
        (units / f"{target}.wants").mkdir(exist_ok=True)
        os.symlink(unit, units / f"{target}.wants" / Path(unit).name)
    (root / "etc/hostname").write_text("debian\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost debian\n")
    # Shared by all clones until cloud-init has run, as with real images that were not cleaned.
    call(
        [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "root@template",
            "-f",
            root / "etc/ssh/ssh_host_ed25519_key",
        ]
    )


def _esp(image: Path) -> None:
    """Format the ESP and add the boot loader's files without mounting."""
    drive = f"{image}@@{ESP[0]}"
    esp = image.parent / "esp"
    (esp / "loader/entries").mkdir(parents=True)
    (esp / "loader/loader.conf").write_text("timeout 0\ndefault debian.conf\n")
    (esp / "loader/entries/debian.conf").write_text(ENTRY)
    call(["mformat", "-i", drive, "-F", "-v", "ESP", "-T", str(ESP[1] >> 9), "-h", "64", "-s", "32", "::"])
    call(["mcopy", "-s", "-i", drive, esp / "loader", "::"])
