# What a flake has, by its outputs: the names of its configurations, none of which is evaluated, and what its output
# nixherd.hosts says of them. `marker` marks what JSON has no word for.
marker: outputs: let
  names = output: builtins.attrNames (outputs.${output} or {});

  plain = value: let
    type = builtins.typeOf value;
  in
    if type == "path"
    then {${marker} = toString value;}
    else if type == "list"
    then map plain value
    else if type == "lambda"
    then {${marker} = "<function>";}
    else if type != "set"
    then value
    else if value.type or null == "derivation"
    then {${marker} = "<derivation>";}
    else builtins.mapAttrs (_: plain) (removeAttrs value ["outPath" "__toString"]);
in {
  nixosConfigurations = names "nixosConfigurations";
  homeConfigurations = names "homeConfigurations";
  darwinConfigurations = names "darwinConfigurations";
  hosts = plain ((outputs.nixherd or {}).hosts or {});
}
