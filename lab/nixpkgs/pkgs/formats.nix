# `pkgs.formats`: a type for settings and a generator of the file.
{
  lib,
  writeText,
}: let
  value = with lib.types; let
    one = nullOr (oneOf [bool int float str path (attrsOf one) (listOf one)]) // {description = "value";};
  in
    one;
  atom = with lib.types; nullOr (oneOf [bool int float str]);
  format = type: render: {
    inherit type;
    generate = name: settings: writeText name (render settings);
  };
in {
  json = {}: format value builtins.toJSON;
  yaml = {}: format value builtins.toJSON;
  toml = {}: format value (import ./toml.nix lib);
  keyValue = args: format (lib.types.attrsOf atom) (lib.generators.toKeyValue args);
  ini = args: format (lib.types.attrsOf (lib.types.attrsOf atom)) (lib.generators.toINI args);
  systemd = format (lib.types.attrsOf lib.types.anything) (lib.generators.toINI {listsAsDuplicateKeys = true;});
}
