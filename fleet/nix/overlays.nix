# Changes to the package set, for every machine and home.
[]
