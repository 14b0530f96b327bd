"""Real machines behind the VMIDs: light hosts with their own disks, network namespace, control group and systemd."""
