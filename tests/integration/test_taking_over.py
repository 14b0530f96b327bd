"""docs/taking-over.md as it is, in a copy of the fleet with the secrets that it ships with: nobody has their keys."""

import re
import shutil
from pathlib import Path

import pytest

from tests.integration.lab_driver import CHECKOUT, Lab
from tests.integration.verified import report

pytestmark = pytest.mark.slow

PAGE = CHECKOUT / "docs" / "taking-over.md"
HEADINGS = ["A copy, and your keys", "What there is", "Begin the secrets", "Your values", "The first machine"]
_EDITOR = "#!/bin/sh\nsed -i 's/^api_token: .*/api_token: mine/' \"$1\"\n"


def steps() -> dict[str, str]:
    """The page's commands, by their heading."""
    found: dict[str, str] = {}
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            found[heading] = found.get(heading, "") + block
    return found


def as_shipped(fleet: Path) -> None:
    shutil.rmtree(fleet / "secrets")
    shutil.copytree(CHECKOUT / "fleet" / "secrets", fleet / "secrets")


def test_the_page(lab: Lab, tmp_path: Path) -> None:
    home, fleet, editor = lab.state / "a-home", lab.places.fleet, lab.state / "editor.sh"
    home.mkdir(mode=0o700)
    editor.write_text(_EDITOR)
    editor.chmod(0o755)
    as_shipped(fleet)
    lab.run("git", "-C", str(fleet), "commit", "-qam", "as it ships")

    def do(step: str) -> str:
        """The page's commands, by somebody with a home and an identity of their own."""
        own = f"export HOME={home} EDITOR={editor}; unset SOPS_AGE_KEY_FILE; cd {fleet}"
        return lab.run("sh", "-euc", f"{own}\n{step}").output

    page = steps()
    assert list(page) == HEADINGS
    assert "Public key: age1" in do(page["A copy, and your keys"])
    there = do(page["What there is"])
    assert there.count('"you": "no"') == there.count('"file":') > 3, there
    begun = do(page["Begin the secrets"])
    assert "make secrets/dev.yaml: new, encrypted for me" in begun, begun
    do(page["Your values"])
    mine = f"export SOPS_AGE_KEY_FILE={home}/.config/sops/age/keys.txt; cd {fleet}"  # the way in is the lab's
    lab.run("sh", "-euc", f"{mine}\n{page['The first machine']}")
    assert report(lab, "dev")["address"]
    assert '"drift": false' in lab.run("nixherd", "secrets", "status", "--json").output
    assert lab.run("git", "-C", str(fleet), "status", "--porcelain").output == ""
