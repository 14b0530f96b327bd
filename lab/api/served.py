"""Imports every module that registers routes."""

from lab.api import (
    access,
    agent,
    clone,
    cloudinit,
    cluster,
    config,
    create,
    destroy,
    nodes,
    pools,
    power,
    resize,
    snapshots,
    storage,
    vm_extras,
    vms,
)

MODULES = (
    *(access, agent, clone, cloudinit, cluster, config, create, destroy, nodes),
    *(pools, power, resize, snapshots, storage, vm_extras, vms),
)
