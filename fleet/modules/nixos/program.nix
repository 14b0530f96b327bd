# machine.sh, with the parts that come before it.
builtins.toFile "machine.sh" (builtins.concatStringsSep "" (map builtins.readFile [./units.sh ./revisions.sh ./ends.sh ./watching.sh ./machine.sh]))
