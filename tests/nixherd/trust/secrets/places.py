"""The small fleet, where people put it and its `.sops.yaml`: below its repository's top, in worktrees, behind links."""

from pathlib import Path

from tests.nixherd.trust.secrets.repositories import git, repository


def below(place: Path, directory: str = "nix") -> Path:
    """The fleet in a subdirectory of its repository, whose `.sops.yaml` is at the top; return that subdirectory."""
    top = repository(place)
    text = (top / "secrets" / ".sops.yaml").read_text()
    for pattern in ("^(common|", "^dev\\.", "^ssh_key_"):
        assert pattern in text
        text = text.replace(pattern, pattern.replace("^", f"^{directory}/secrets/"))
    (top / ".sops.yaml").write_text(text)
    git(top, "rm", "-q", "secrets/.sops.yaml")
    (top / directory).mkdir(parents=True)
    for name in ("hosts.nix", "hosts", "vms", "secrets"):
        git(top, "mv", name, f"{directory}/{name}")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "moved")
    return top / directory


def at_the_top(place: Path) -> Path:
    """The fleet with its `.sops.yaml` in its own directory, as most have it."""
    fleet = repository(place)
    text = (fleet / "secrets" / ".sops.yaml").read_text()
    for pattern in ("^(common|", "^dev\\.", "^ssh_key_"):
        text = text.replace(pattern, pattern.replace("^", "secrets/"))
    git(fleet, "mv", "secrets/.sops.yaml", ".sops.yaml")
    (fleet / ".sops.yaml").write_text(text)
    git(fleet, "commit", "-qam", "moved")
    return fleet
