"""A person's SSH key, and secrets for the age identity that it is."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from nixherd.ssh import age
from tests.integration.lab_driver import Lab


@dataclass(frozen=True)
class Identity:
    """`private` is the text of the private key, `public` its line, `recipient` the age key."""

    private: str
    public: str
    recipient: str

    @classmethod
    def make(cls, directory: Path) -> "Identity":
        path = directory / "identity"
        argv: list[str | Path] = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a person", "-f", path]
        subprocess.run(argv, check=True)
        public = path.with_suffix(".pub").read_text().strip()
        return cls(path.read_text(), public, age.recipient(public))


def encrypt(lab: Lab, name: str, kind: str, text: str, *recipients: str) -> None:
    """Make secrets/NAME of the lab's fleet, for these age recipients alone."""
    plain = lab.state / "plain"
    plain.write_text(text)
    output = "json" if kind == "binary" else kind
    types = f"--input-type {kind} --output-type {output}"
    # from where no .sops.yaml says for whom
    argv = f'cd {lab.state} && sops encrypt --age {",".join(recipients)} {types} plain >"$FLEET/secrets/{name}"'
    lab.run("sh", "-c", argv)
    plain.unlink()
