"""Keys, secrets, and hosts that join and leave the fleet."""
