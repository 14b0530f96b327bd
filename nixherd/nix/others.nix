# What a flake has for other tools: the names of their machines, none of which is evaluated.
outputs: let
  get = name: set:
    if builtins.isAttrs set
    then set.${name} or null
    else null;
  names = set:
    if builtins.isAttrs set
    then builtins.attrNames set
    else [];
in {
  # Of a hive these are not machines.
  colmena = builtins.filter (name: !builtins.elem name ["meta" "defaults" "network"]) (names (get "colmena" outputs));
  colmenaHive = names (get "nodes" (get "colmenaHive" outputs));
  "deploy.nodes" = names (get "nodes" (get "deploy" outputs));
}
