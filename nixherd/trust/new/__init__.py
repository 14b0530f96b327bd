"""A new host: its files, its entries and its secrets. Nothing of it is written before all was proven."""
