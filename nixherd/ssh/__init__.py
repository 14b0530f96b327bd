"""SSH: keys, known destinations, and jobs that outlive a connection."""
