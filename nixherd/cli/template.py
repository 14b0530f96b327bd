"""`nixherd template`: what new machines are cloned from."""

import time
from pathlib import Path
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import progress, show_json, wants_json
from nixherd.cli.parameters import Seconds, changing, standing
from nixherd.proxmox.template.create import create, plan
from nixherd.proxmox.template.image import FIRMWARES, Source, template_spec
from nixherd.terminal import say

# What Linux lets a VM have, and MiB that Proxmox VE takes: more would be refused once the image is there.
MOST_CORES, MOST_MEMORY = 4096, 4178944
NOTHING = "it is there and has what a clone needs"


@click.group()
def template() -> None:
    """The template that new VMs are cloned from."""


@template.command("create")
@click.option("--image", metavar="VOLUME", help="An image that a storage has: STORAGE:import/FILE.")
@click.option("--url", metavar="URL", help="An image that the node fetches; with --checksum.")
@click.option("--checksum", metavar="SHA256", help="Of what --url gives.")
@click.option("--from", "file", type=click.Path(path_type=Path), help="An image here, which is sent there.")
@click.option("--images", metavar="STORAGE", help="Where an image is brought to; else the only storage for them.")
@click.option("--storage", metavar="NAME", help="For its disks; else template.storage, else proxmox.defaultStorage.")
@click.option("--bios", type=click.Choice(FIRMWARES), help="Else template.bios, else ovmf.")
@click.option("--pool", metavar="NAME", help="Where it and its trial are made; else template.pool.")
@click.option("--bridge", default="vmbr0", show_default=True)
@click.option("--cores", type=click.IntRange(1, MOST_CORES), default=2, show_default=True)
@click.option("--memory", type=click.IntRange(512, MOST_MEMORY), default=2048, show_default=True, metavar="MIB")
@click.option("--range", "trials", default="templates", show_default=True, help="Of vmidRanges: where it is tried.")
@click.option(
    "--boot-deadline",
    type=Seconds(),
    metavar="SECONDS",
    callback=standing("boot_deadline", 300.0),
    help="For the trial to come up; else group data's boot_deadline, else 300.",
)
@changing
@pass_front
def create_(
    front: Front,
    /,
    image: str | None,
    url: str | None,
    checksum: str | None,
    file: Path | None,
    boot_deadline: float,
    **options: Any,
) -> None:
    """Make the declared template out of a cloud image, and see that clones of it boot and answer.

    A template that is there is never changed. One clone tries the image before it becomes a template.
    """
    source = Source.of(image, url, checksum, file)
    asked = template_spec(front.fleet, source, **options)
    began = time.monotonic()
    if front.dry_run:
        steps = list(plan(front.client, front.fleet, asked).steps(asked))
    else:
        front.session.claim(f"template-{asked.vmid}")
        with progress(f"template {asked.vmid} ({asked.name})") as told:
            steps = create(front.client, front.fleet, asked, timeout=front.timeout, boots=boot_deadline, progress=told)
    if wants_json(front.as_json):
        about: dict[str, Any] = {"name": asked.name, "vmid": asked.vmid, "steps": steps}
        ended = {"changed": bool(steps), "seconds": round(time.monotonic() - began, 1)}
        why: dict[str, Any] = {} if steps else {"reason": NOTHING}
        show_json(about | ({"planned": True} if front.dry_run else ended) | why)
        return
    for step in steps:
        say(f"template {asked.vmid}: {'would ' if front.dry_run else ''}{step}")
    if not steps:
        say(f"template {asked.vmid}: nothing to do, {NOTHING}")
