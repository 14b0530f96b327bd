"""Imports every module that registers routes."""

from lab.api import (
    access,
    agent,
    clone,
    cloudinit,
    cluster,
    config,
    container_snapshots,
    containers,
    create,
    destroy,
    disks,
    migrate,
    nodes,
    pools,
    power,
    prune,
    resize,
    snapshots,
    storage,
    vm_extras,
    vms,
    vzdump,
)

MODULES = (
    *(access, agent, clone, cloudinit, cluster, config, container_snapshots, containers, create, destroy),
    *(disks, migrate, nodes, pools, power, prune, resize, snapshots, storage, vm_extras, vms, vzdump),
)
