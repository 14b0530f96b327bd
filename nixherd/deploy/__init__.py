"""One deployment of a selection of hosts: what it does on a machine, notes and reports. Knows no pyinfra."""
