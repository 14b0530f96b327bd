# The one evaluation behind `load_fleet`: the flake's directory (a string) → what its files say, as plain JSON.
#
# Paths come out marked, with whether they exist, so that nothing is copied to the store and a string is not taken for a
# path. What JSON has no word for (a function, a derivation in somebody's notes) comes out as a word for it.
directory:
let
  file = name: /. + "${directory}/${name}";
  definitions = file "vms/definitions.nix";

  plain =
    value:
    let
      type = builtins.typeOf value;
    in
    if type == "path" then
      {
        "nixherd:path" = toString value;
        exists = builtins.pathExists value;
      }
    else if type == "list" then
      map plain value
    else if type == "lambda" then
      "<function>"
    else if type != "set" then
      value
    else if value.type or null == "derivation" then
      "<derivation>"
    else
      # toJSON would print these two in the set's place.
      builtins.mapAttrs (_: plain) (
        removeAttrs value [
          "outPath"
          "__toString"
        ]
      );
in
{
  hosts = plain (import (file "hosts.nix"));
  definitions = if builtins.pathExists definitions then plain (import definitions) else null;
}
