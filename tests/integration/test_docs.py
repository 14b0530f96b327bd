"""The pages as they are printed: every block of commands is typed in the lab, in order, and shows what is shown.

One lab for all, as somebody reads them one after the other; scenes.py says what each takes for granted. A page alone
(`-k everyday`) begins with the machines that the README makes, made here.
"""

import os
from collections.abc import Iterator

import pytest

from lab.start import PRIVILEGES, ROLE, STORAGE, TEMPLATE, recipe
from tests.integration.lab_driver import Lab
from tests.integration.reading import Reader
from tests.integration.scenes import SCENES, another

pytestmark = pytest.mark.slow

HOSTS = ("dev", "dev2", "dev3")
FROM_NOTHING = ("docs/lab.md", "docs/taking-over.md", "docs/evening.md")
"""pages that need no machines of others, and have a worker of their own"""
_WITH_MACHINES = [page for page in SCENES if page not in FROM_NOTHING]
WITH_WEB = _WITH_MACHINES[_WITH_MACHINES.index("fleet/README.md") + 1 :]
_IN_A_WORKER = [
    pytest.param(page, marks=pytest.mark.xdist_group("docs-from-nothing" if page in FROM_NOTHING else "docs"))
    for page in SCENES
]
MAKE_WEB = "nixherd new web01 --size small --pool nixherd --secret api_token --commit --yes && nixherd provision web01"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes namespaces, loop devices and mounts")
    lab = Lab(tmp_path_factory.mktemp("docs"))
    yield Reader(lab)
    for state in (lab.state, another(lab)):
        if state.exists():
            Lab(state)("down")


@pytest.mark.parametrize("page", _IN_A_WORKER)
def test_the_page(page: str, reader: Reader) -> None:
    lab = reader.lab
    if page != "README.md" and not lab.places.running.exists():
        lab("up", "--hosts", str(len(HOSTS)))
    if page in _WITH_MACHINES[1:] and not (lab.kept / "dev3/verified.json").exists():
        lab.run("nixherd", "provision", *HOSTS)
    if page in WITH_WEB and not (lab.kept / "web01/verified.json").exists():
        lab.run("sh", "-c", MAKE_WEB)
    reader.read(page, SCENES[page](lab))
    if page == "docs/proxmox.md":
        _grants_what_the_lab_grants(lab)


def _grants_what_the_lab_grants(lab: Lab) -> None:
    """The `pveum` lines of docs/proxmox.md make the lab's role, and grant what its token has."""
    calls = [line.split("\t")[:-1] for line in (lab.state / "pveum.log").read_text().splitlines()]
    roles = {call[2]: call[4].replace("\\", " ").split() for call in calls if call[:2] == ["role", "add"]}
    assert sorted(roles[ROLE]) == sorted(PRIVILEGES)
    grants = {(call[2], call[4], call[5]) for call in calls if call[:2] == ["acl", "modify"]}
    for path, role in recipe([]):
        if path in (f"/vms/{TEMPLATE}", f"/storage/{STORAGE}", "/vms/104") or role in (ROLE, "PVESDNUser"):
            assert {(path, role, kind) for kind in ("--users", "--tokens")} <= grants
