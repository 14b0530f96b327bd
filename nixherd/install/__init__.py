"""What an installation needs, and whether it is permitted."""
