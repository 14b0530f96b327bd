"""Facts of a Proxmox VE node itself, or another Debian machine that passes devices through to guests; root is needed.

pyinfra nodes.py --limit prom fact facts.proxmox_host.Boot
"""

import base64
import binascii
import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from nixherd.base.answers import below, values_of
from nixherd.facts.base import Fact
from nixherd.proxmox.node import states
from nixherd.proxmox.node.kernel import order

_SAY = r"""say() { printf '%s=%s\n' "$1" "$2"; }
pack() { base64 -w 0; }
read_grub() { [ ! -r /etc/default/grub ] || . /etc/default/grub
  for each in /etc/default/grub.d/*.cfg; do [ ! -r "$each" ] || . "$each"; done; }
"""


_values = partial(values_of, whose="node", may_be_empty=True)


def _text(packed: str) -> str | None:
    """What `pack` was given; None for nothing."""
    try:
        return base64.b64decode(packed, validate=True).decode(errors="replace") or None
    except binascii.Error as error:
        raise FactProcessError(f"what the node says arrives broken: {error}") from None


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    """What files hold, by path."""
    return {file: _text(packed) or "" for file, packed in below("text.", values).items()}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and text.isascii() else None


class Node(Fact[states.NodeState | None]):
    """
    Returns what a node is:

    .. code:: python

        {"id": "debian", "like": "", "pve": "9.0.3", "hostname": "prom", "uid": 0, "vendor": "AuthenticAMD",
         "kernel": "6.14.8-2-pve", "secure_boot": False, "booted": 1764000000}
    """

    @override
    def command(self) -> str:
        return f"""{_SAY}
if [ -r /etc/os-release ]; then . /etc/os-release; fi
say id "${{ID:-}}"; say like "${{ID_LIKE:-}}"
say pve "$(dpkg-query -W -f '${{Status}} ${{Version}}' pve-manager 2>/dev/null | sed -n 's/^.* installed //p')"
say hostname "$(cat /proc/sys/kernel/hostname)"; say uid "$(id -u)"
say vendor "$(sed -n 's/^vendor_id[^:]*: *//p' /proc/cpuinfo | head -n 1)"
say kernel "$(uname -r)"
say secure_boot "$(od -An -t u1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c 2>/dev/null |
  tr -s ' ')"
say booted "$(sed -n 's/^btime //p' /proc/stat)\""""

    @override
    def process(self, output: list[str]) -> states.NodeState:
        values = _values(output, "id", "like", "pve", "hostname", "uid", "vendor", "kernel", "secure_boot", "booted")
        secure = values["secure_boot"].split()  # four bytes of attributes, then the value
        return states.NodeState(
            id=values["id"],
            like=values["like"],
            pve=values["pve"] or None,
            hostname=values["hostname"],
            uid=int(values["uid"]),
            vendor=values["vendor"] or None,
            kernel=values["kernel"],
            secure_boot=secure[4] == "1" if len(secure) == 5 else None,
            booted=_number(values["booted"]),
        )


class Boot(Fact[states.BootState | None]):
    """
    Returns what boots a node, with which words, and which kernels there are:

    .. code:: python

        {"command_line": "BOOT_IMAGE=… quiet", "tool": None, "texts": {"/etc/default/grub": "…"}, "effective": "quiet",
         "grub_default": "0", "entries": ["/boot/vmlinuz-… quiet"], "entries_time": 1764000000, "pinned": None,
         "kernels": [{"version": "6.14.8-2-pve", "package": "proxmox-kernel-6.14.8-2-pve-signed", "headers": True,
                      "initrd": 1764000000}], "notes": []}
    """

    @override
    def command(self) -> str:
        return f"""{_SAY}
uuids=/etc/kernel/proxmox-boot-uuids
lines='^(options|[[:space:]]*linux(efi)?)[[:space:]]'
say running "$(cat /proc/cmdline)"
if [ -s $uuids ]; then
  say tool "$(proxmox-boot-tool status 2>&1 </dev/null | pack)"
  export lines
  entries=$(while read -r id; do
    unshare --mount sh -c 'mount -o ro "/dev/disk/by-uuid/$0" /mnt || exit
      echo "@esp"; grep -hsE "$lines" /mnt/loader/entries/*.conf /mnt/grub/grub.cfg
      echo "@time $(stat -c %Y /mnt/loader/entries/*.conf /mnt/grub/grub.cfg 2>/dev/null | sort -n | tail -n 1)"' \\
      "$id" </dev/null 2>/dev/null || echo @unknown
  done <$uuids)
  say entries "$(printf '%s' "$entries" | grep -v '^@' | pack)"
  say esps "$(printf '%s' "$entries" | grep -c '^@esp')"
  say unknown "$(printf '%s' "$entries" | grep -c '^@unknown')"
  say entries_time "$(printf '%s' "$entries" | sed -n 's/^@time //p' | sort -n | tail -n 1)"
else
  say tool ""; say esps "$([ -r /boot/grub/grub.cfg ] && echo 1 || echo 0)"; say unknown 0
  say entries "$(grep -hE "$lines" /boot/grub/grub.cfg 2>/dev/null | pack)"
  say entries_time "$(stat -c %Y /boot/grub/grub.cfg 2>/dev/null)"
fi
for file in {states.GRUB} {states.CMDLINE}; do [ ! -r $file ] || say text.$file "$(pack <$file)"; done
say effective "$( (read_grub; printf '%s %s' "${{GRUB_CMDLINE_LINUX:-}}" "${{GRUB_CMDLINE_LINUX_DEFAULT:-}}") \\
  2>/dev/null </dev/null | pack)"
say grub_default "$( (read_grub; printf '%s' "${{GRUB_DEFAULT:-}}") 2>/dev/null </dev/null | head -n 1)"
say pinned "$(cat /etc/kernel/next-boot-pin /etc/kernel/proxmox-boot-pin 2>/dev/null | head -n 1)"
for image in /boot/vmlinuz-*; do
  [ -e "$image" ] || continue
  kernel=${{image#/boot/vmlinuz-}}
  say "kernel.$kernel" "$(dpkg-query -S "$image" 2>/dev/null | sed -n '1s/:.*//p') $(
    [ -e "/lib/modules/$kernel/build/Makefile" ] && echo yes || echo no) $(
    stat -c %Y "/boot/initrd.img-$kernel" 2>/dev/null || echo none)"
done
say notes "$(ls {states.NOTES} 2>/dev/null | tr '\\n' ' ')\""""

    @override
    def process(self, output: list[str]) -> states.BootState:
        values = _values(output, "running", "tool", "entries", "esps", "unknown", "effective", "pinned", "notes")
        entries = (_text(values["entries"]) or "").splitlines()
        known = values["esps"] not in ("", "0") and values["unknown"] == "0" and bool(entries)
        texts, kernels = _texts(values), below("kernel.", values)
        return states.BootState(
            command_line=values["running"],
            tool=_text(values["tool"]),
            texts=texts,
            effective=_text(values["effective"]) or "" if states.GRUB in texts else None,
            grub_default=values.get("grub_default", ""),
            entries=entries if known else None,
            entries_time=_number(values.get("entries_time")),
            pinned=values["pinned"].strip() or None,
            kernels=[_kernel(version, kernels[version]) for version in sorted(kernels, key=order)],
            notes=values["notes"].split(),
        )


def _kernel(version: str, value: str) -> states.Kernel:
    package, headers, initrd = value.split(" ")
    return states.Kernel(version=version, package=package or None, headers=headers == "yes", initrd=_number(initrd))


class Kernels(Fact[list[str]]):
    """
    Returns the installed packages of kernels, those included that only bring the newest:

    .. code:: python

        ["proxmox-default-kernel", "proxmox-kernel-6.14", "proxmox-kernel-6.14.8-2-pve-signed"]
    """

    @override
    def command(self) -> str:
        return (
            "dpkg-query -W -f '${db:Status-Status} ${Package}\\n' 'proxmox-default-kernel' 'proxmox-kernel-*' "
            "'pve-kernel-*' 'linux-image-*' 2>/dev/null | sed -n 's/^installed //p'"
        )

    @override
    def process(self, output: list[str]) -> list[str]:
        return sorted({line.strip() for line in output if line.strip() and " " not in line.strip()})


class Modules(Fact[states.ModuleState | None]):
    """
    Returns which modules are loaded or built in, what other files than ours tell vfio-pci, and our own files:

    .. code:: python

        {"loaded": ["vfio", …], "options": ["/etc/modprobe.d/vfio.conf:1:options vfio-pci ids=1002:13c0"],
         "texts": {"/etc/modprobe.d/nixherd-vfio.conf": "…"}, "times": {"/etc/modprobe.d/nixherd-vfio.conf": 17640…}}
    """

    @override
    def command(self) -> str:
        return f"""{_SAY}
say loaded "$(ls /sys/module | tr '\\n' ' ') $(cut -d ' ' -f 1 /proc/modules | tr '\\n' ' ')"
say options "$(grep -HnsE '^[[:space:]]*options[[:space:]]+vfio[-_]pci[[:space:]]' \\
  /etc/modprobe.d/*.conf /lib/modprobe.d/*.conf | grep -v '^{states.VFIO}:' | pack)"
for file in {states.VFIO} {states.VFIO_MODULES} {states.RESET_MODULE} {states.CARD_RULE}; do
  [ ! -r $file ] || {{ say text.$file "$(pack <$file)"; say time.$file "$(stat -c %Y $file)"; }}
done"""

    @override
    def process(self, output: list[str]) -> states.ModuleState:
        values = _values(output, "loaded", "options")
        times = {file: _number(value) for file, value in below("time.", values).items()}
        options = (_text(values["options"]) or "").splitlines()
        return states.ModuleState(
            loaded=sorted({name.replace("-", "_") for name in values["loaded"].split()}),
            options=[line for line in options if line.count(":") >= 2],
            texts=_texts(values),
            times={file: time for file, time in times.items() if time is not None},
        )


class Pci(Fact[states.PciState | None]):
    """
    Returns the PCI devices with their IOMMU groups, and how many groups there are:

    .. code:: python

        {"devices": [{"address": "0000:7a:00.0", "id": "1002:13c0", "kind": "0300", "driver": "vfio-pci", "group": 14,
                      "reset_method": "device_specific"}], "groups": 32}
    """

    @override
    def command(self) -> str:
        return f"""{_SAY}
name() {{ readlink "$1" | sed 's|.*/||'; }}
say groups "$(ls /sys/kernel/iommu_groups 2>/dev/null | wc -l)"
for each in /sys/bus/pci/devices/*; do
  [ -r "$each/vendor" ] || continue
  say "device.${{each##*/}}" "$(cat "$each/vendor") $(cat "$each/device") $(cat "$each/class") $(
    name "$each/driver")/$(name "$each/iommu_group")/$(cat "$each/reset_method" 2>/dev/null)"
done"""

    @override
    def process(self, output: list[str]) -> states.PciState:
        values = _values(output, "groups")
        devices = [_device(*each) for each in below("device.", values).items()]
        return states.PciState(devices=devices, groups=int(values["groups"]))


def _device(address: str, value: str) -> states.PciDevice:
    vendor, device, kind, rest = value.split(" ", 3)
    driver, group, method = rest.split("/", 2)
    return states.PciDevice(
        address=address,
        id=f"{vendor.removeprefix('0x')}:{device.removeprefix('0x')}",
        kind=kind.removeprefix("0x")[:4],
        driver=driver or None,
        group=_number(group),
        reset_method=method.strip() or None,
    )


class Dkms(Fact[states.DkmsState | None]):
    """
    Returns what DKMS has of vendor-reset, and what a directory holds that may be its source:

    .. code:: python

        {"version": "3.2.0", "status": "vendor-reset/0.1.1, 6.14.8-2-pve, x86_64: installed", "conf": "PACKAGE_NAME=…",
         "source": "9f2c…", "registered": "9f2c…", "files": {"6.14.8-2-pve": "/lib/modules/…/vendor-reset.ko"},
         "signers": {"6.14.8-2-pve": "DKMS module signing key"}, "builds": {"6.14.8-2-pve": "0A1B…"}, "loaded": "0A1B…"}
    """

    @override
    def command(self, source: Any = f"/usr/src/{states.VENDOR_RESET}") -> str:
        return f"""{_SAY}
digest() {{ [ ! -d "$1" ] || (cd "$1" && find . -name .git -prune -o -type f -print0 | LC_ALL=C sort -z |
  xargs -0r sha256sum | sha256sum | cut -d ' ' -f 1); }}
source={shlex.quote(str(source))}
say version "$(dkms --version 2>/dev/null | tr -dc '0-9.')"
say status "$(dkms status -m {states.VENDOR_RESET} 2>/dev/null </dev/null | pack)"
say conf "$([ ! -r "$source/dkms.conf" ] || pack <"$source/dkms.conf")"
version=$(sed -n "s/^[[:space:]]*PACKAGE_VERSION=[\\"']\\{{0,1\\}}\\([A-Za-z0-9._+~-]*\\).*/\\1/p" \\
  "$source/dkms.conf" 2>/dev/null)
say source "$(digest "$source")"; say registered "$(digest "/usr/src/{states.VENDOR_RESET}-$version")"
for directory in /lib/modules/*/; do
  kernel=$(basename "$directory")
  file=$(modinfo -k "$kernel" -n {states.VENDOR_RESET} 2>/dev/null) || continue
  say "file.$kernel" "$file"; say "signer.$kernel" "$(modinfo -k "$kernel" -F signer {states.VENDOR_RESET} 2>/dev/null)"
  say "build.$kernel" "$(modinfo -k "$kernel" -F srcversion {states.VENDOR_RESET} 2>/dev/null)"
done
say loaded "$(cat /sys/module/vendor_reset/srcversion 2>/dev/null)\""""

    @override
    def process(self, output: list[str]) -> states.DkmsState:
        values = _values(output, "version", "status", "conf", "source", "registered")
        return states.DkmsState(
            version=values["version"] or None,
            status=(_text(values["status"]) or "").strip(),
            conf=_text(values["conf"]),
            source=values["source"] or None,
            registered=values["registered"] or None,
            files=below("file.", values),
            signers={kernel: who for kernel, who in below("signer.", values).items() if who},
            builds={kernel: build for kernel, build in below("build.", values).items() if build},
            loaded=values.get("loaded") or None,
        )
