"""A scripted server with a certificate, and a client for it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.fleet.models import Endpoint
from nixherd.proxmox.client import Client, connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.token import Server, Token, fingerprints, read_authorities
from tests.nixherd.proxmox.fleets import FLEET
from tests.nixherd.proxmox.scripted import Answer, Scripted, make_certificate, serving

SECRET = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0"
TOKEN = Token("nixherd@pve", "lab", SECRET, Server("nowhere.invalid"))
POLICY = Policy.from_fleet(FLEET)
UPID = "UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "prom.pem")


@pytest.fixture
def server(certificate: Path) -> Iterator[Scripted]:
    with serving(certificate) as scripted:
        yield scripted


@pytest.fixture
def client(server: Scripted) -> Client:
    return connected(server.endpoint())


def connected(endpoint: Endpoint, policy: Policy = POLICY) -> Client:
    """A client with a token of that very server."""
    certificates = read_authorities(endpoint.ca_file, "{}") if endpoint.ca_file else []
    return connect(endpoint, policy, replace(TOKEN, server=Server.of(endpoint, fingerprints(certificates))))


def script(server: Scripted, *answers: Answer) -> None:
    """Give these answers in turn, the last one for ever."""
    left = list(answers)
    server.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]
