"""`nixherd template`: what new machines are cloned from."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.help import Group
from nixherd.cli.parameters import SECONDS, changing, standing
from nixherd.proxmox.template.create import create, plan
from nixherd.proxmox.template.image import FIRMWARES, Source
from nixherd.proxmox.template.image import template_spec as described

# The most cores that Linux supports and MiB that Proxmox VE takes: it would refuse more after the image was fetched.
MOST_CORES, MOST_MEMORY = 4096, 4178944
NOTHING = "it is there and has what a clone needs"


@click.group(cls=Group)
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
@click.option("--bridge", default="vmbr0", help="The bridge that its net0 is on.")
@click.option("--cores", type=click.IntRange(1, MOST_CORES), default=2, help="Its cores.")
@click.option("--memory", type=click.IntRange(512, MOST_MEMORY), default=2048, metavar="MIB", help="Its memory.")
@click.option("--range", "trials", default="templates", help="Of vmidRanges: where it is tried.")
@standing("--boot-deadline", "boot_deadline", 300, "For the trial to come up", type=SECONDS)
@changing
@pass_front
def create_(front: Front, /, boot_deadline: float, **options: Any) -> None:
    """Make the declared template from a cloud image, and prove that a clone of it boots and answers.

    A template that exists is never changed. One clone tries the image before it becomes a template.
    """
    source = Source.of(*(options.pop(each) for each in ("image", "url", "checksum", "file")))
    template = described(front.fleet, source, **options)
    label, seconds = f"template {template.vmid}", None
    if front.dry_run:
        steps = list(plan(front.client, front.fleet, template).steps(template))
    else:
        make = partial(create, front.client, front.fleet, template, timeout=front.timeout, boots=boot_deadline)
        steps, seconds = front.timed(f"{label} ({template.name})", f"template-{template.vmid}", make)
    document = {"name": template.name, "vmid": template.vmid}
    front.show_steps(label, document, steps, seconds=seconds, reason="" if steps else NOTHING)
