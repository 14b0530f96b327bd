"""Images to import from: fetched by the node, and made a disk of."""

from typing import Any

import pytest

from lab.api.errors import ParameterError
from tests.lab.api_node import GIB, STATE, Node, state_with

URL = "https://cloud.example/debian.qcow2"
IMAGE = "local:import/debian.qcow2"
LOCAL = {
    **{"type": "dir", "path": "/var/lib/vz", "content": "iso,import", "total": 50 * GIB},
    "volumes": {"local:iso/debian.img": {"content": "iso", "format": "iso", "size": GIB}},
}


@pytest.fixture
def node() -> Node:
    web = {URL: {"size": 3 * GIB, "sha256": "ab" * 32}}
    return Node(state_with(storages={**STATE["storages"], "local": LOCAL}, web=web))


def fetch(node: Node, **params: str) -> str:
    request: dict[str, Any] = {"content": "import", "filename": "debian.qcow2", "url": URL, **params}
    return node.run("POST", "/nodes/prom/storage/local/download-url", **request)


def test_what_is_fetched_is_there_and_becomes_a_disk(node: Node) -> None:
    assert fetch(node, **{"checksum": "AB" * 32, "checksum-algorithm": "sha256"}) == "OK"
    [row] = node.get("/nodes/prom/storage/local/content", content="import")
    assert (row["volid"], row["format"], row["size"]) == (IMAGE, "qcow2", 3 * GIB)
    assert "exists already" in fetch(node)
    assert node.run("POST", "/nodes/prom/qemu", vmid=110, scsi0=f"nvme:0,import-from={IMAGE}") == "OK"
    assert node.config(110)["scsi0"] == "nvme:vm-110-disk-0,size=3G"


def test_what_is_not_what_was_meant_is_not_there(node: Node) -> None:
    output = fetch(node, **{"checksum": "cd" * 32, "checksum-algorithm": "sha256"})
    assert output == f"checksum mismatch: got '{'ab' * 32}' != expect '{'cd' * 32}'"
    assert fetch(node, url="https://elsewhere.example/x.qcow2") == "download failed: the lab's node has no network"
    assert node.get("/nodes/prom/storage/local/content", content="import") == []
    with pytest.raises(ParameterError) as refused:
        fetch(node, filename="debian.iso")
    assert refused.value.errors == {"filename": "wrong file extension"}
    with pytest.raises(ParameterError) as refused:
        node.call("POST", "/nodes/prom/qemu", {"vmid": 110, "scsi0": "nvme:0,import-from=local:iso/debian.img"})
    assert "needs to be 'images' or 'import'" in refused.value.errors["scsi0"]
