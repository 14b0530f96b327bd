"""machine.sh and the parts before it are one program, joined alike where it is sent and where it is installed."""

import re
import subprocess
from pathlib import Path

import pytest

from nixherd.deploy import protocol as activation
from tests.nix_cli import nix

MODULES = Path(__file__).parents[3] / "fleet/modules/nixos"
JOINED = "".join((MODULES / name).read_text() for name in activation.PARTS)


def test_what_is_sent_is_what_the_modules_have() -> None:
    sent = activation._program()
    assert sent == JOINED
    assert activation.PARTS[-1] == "machine.sh"  # it begins: all that it calls stands before it
    joined = re.findall(r"\./([\w-]+\.sh)\b", (MODULES / "program.nix").read_text())
    assert tuple(joined) == activation.PARTS


def test_the_parts_fit_together(tmp_path: Path) -> None:
    """Each function is defined once, and a part but the last does nothing by itself."""
    defined = re.findall(r"^(\w+)\(\)", JOINED, re.MULTILINE)
    assert len(defined) == len(set(defined))
    (tmp_path / "program").write_text(JOINED)
    subprocess.run(["sh", "-n", tmp_path / "program"], check=True)
    for name in activation.PARTS[:-1]:
        script = f"set -u\n{(MODULES / name).read_text()}"
        done = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), name  # it defines, and does nothing


@pytest.mark.nix
def test_what_is_installed_is_what_is_sent() -> None:
    program = nix("eval", "--raw", "--impure", "--file", MODULES / "program.nix")
    assert Path(program).read_text() == JOINED
