# machine.sh, preceded by its parts.
builtins.toFile "machine.sh" (builtins.concatStringsSep "" (map builtins.readFile [./units.sh ./revisions.sh ./ends.sh ./watching.sh ./machine.sh]))
