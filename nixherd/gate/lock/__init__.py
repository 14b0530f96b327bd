"""flake.lock: what it says, what moved, and its update through the gate."""
