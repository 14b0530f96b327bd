"""What DKMS says, as its versions have said it."""

import pytest

from nixherd.base.errors import FleetError
from nixherd.proxmox.node.kernel import DkmsRow, dkms_rows, installed, version_of

# 3.0.10 as it was recorded on Debian 12; 2.8.4 (Debian 11, Proxmox VE 7) as its source prints it.
ADDED = "vendor-reset/0.1.1: added"
BUILT = "vendor-reset/0.1.1, 6.14.8-2-pve, x86_64: built"
INSTALLED = "vendor-reset/0.1.1, 6.14.8-2-pve, x86_64: installed\nvendor-reset/0.1.1, 6.8.12-4-pve, x86_64: built"
DIFFERS = "vendor-reset/0.1.1, 6.14.8-2-pve, x86_64: installed (WARNING! Diff between built and installed module!)"
NO_SOURCE = (
    "Error! Could not locate dkms.conf file.\nFile: /var/lib/dkms/vendor-reset/0.1.1/source/dkms.conf does not exist."
)
OLD = """\
vendor-reset, 0.1.1, 5.15.39-1-pve, x86_64: installed
vendor-reset, 0.1.0: added
zfs, 2.1.4, 5.15.39, x86_64: installed
"""
WEAK = "vendor-reset, 0.1.1, 6.8.12-4-pve, x86_64: installed-weak from 6.8.4-2-pve"
ORIGINAL = "vendor-reset/0.1.1, 6.1.0-18-amd64, x86_64: installed (original_module exists)"


def test_rows() -> None:
    assert dkms_rows(ADDED) == (DkmsRow("vendor-reset", "0.1.1", None, "added"),)
    assert dkms_rows("vendor-reset/0.1.1: broken")[0].state == "broken"
    assert dkms_rows(NO_SOURCE) == dkms_rows("") == ()
    assert [row.kernel for row in dkms_rows(OLD)] == ["5.15.39-1-pve", None, "5.15.39"]


@pytest.mark.parametrize(
    ("text", "kernels"),
    [
        (ADDED, set()),
        (BUILT, set()),
        (INSTALLED, {"6.14.8-2-pve"}),
        (DIFFERS, set()),
        (OLD, {"5.15.39-1-pve"}),
        (WEAK, set()),
        (ORIGINAL, {"6.1.0-18-amd64"}),
        (f"{NO_SOURCE}\n{INSTALLED}", {"6.14.8-2-pve"}),
    ],
)
def test_installed(text: str, kernels: set[str]) -> None:
    assert installed(dkms_rows(text), "0.1.1") == kernels
    assert installed(dkms_rows(text), "0.1") == frozenset()


def test_whose_source_it_is() -> None:
    assert version_of('PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="0.1.1"\nMAKE[0]="make"\n', "/s") == "0.1.1"
    assert version_of("PACKAGE_VERSION=0.1 # x\n  PACKAGE_NAME='vendor-reset'\n", "/s") == "0.1"
    for conf, why in (
        (None, "/s/dkms.conf is not there: put the source of vendor-reset"),
        ('PACKAGE_NAME="zfs"\nPACKAGE_VERSION="1"', "is of zfs, not vendor-reset"),
        ("", "is of no module"),
        ('PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="#MODULE_VERSION#"', "not a plain version"),
        ('PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="$(git describe)"', "not a plain version"),
        ('PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="1/../x"', "not a plain version"),
    ):
        with pytest.raises(FleetError, match=why):
            version_of(conf, "/s")
