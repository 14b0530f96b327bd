"""A connection to one machine of the fleet: where it is tried, the key that has to answer, the proof of who answers."""
