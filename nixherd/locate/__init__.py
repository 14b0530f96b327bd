"""Where a machine is right now, and whether what answers is that machine."""
