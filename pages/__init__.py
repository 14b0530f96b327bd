"""The documentation: its links and command lines checked, its reference made from the code, and its site."""
