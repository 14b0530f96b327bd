"""Requests of every kind through the guarded session, and what of them reached the server."""
