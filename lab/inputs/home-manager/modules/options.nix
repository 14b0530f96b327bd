# Options that most programs have.
lib: let
  inherit (lib) mkOption types;
  of = type: default: mkOption {inherit type default;};
in {
  inherit of;
  flag = of types.bool;
  set = of (types.attrsOf types.anything) {};
  lines = of types.lines "";
  strings = of (types.listOf types.str);
  switch.enable = of types.bool false;
}
