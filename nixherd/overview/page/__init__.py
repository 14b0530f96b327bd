"""The document as pages: one for the fleet and one for each host, whole in themselves, that ask nobody for anything."""
