"""The fleet as pyinfra hosts and groups. FLEET names the flake's directory; fleet/ beside this file is the default."""

from nixherd.pyinfra_glue.inventory import inventory_beside

globals().update(inventory_beside(__file__))
