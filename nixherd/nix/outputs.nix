# What a flake has, by its outputs: the names of its configurations, none of which is evaluated, and what its output
# nixherd.hosts says of them. `marker` marks what JSON has no word for. `everywhere`: packages are looked at as well.
marker: everywhere: outputs: let
  namesIn = value:
    if builtins.isAttrs value
    then builtins.attrNames value
    else [];
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

  # deploy-rs's nodes: what each says is read with its host, since it may be of the configuration. A `deploy` without
  # nodes is something else.
  nodes = (outputs.deploy or {}).nodes or null;
  # One that cannot be looked at stops itself alone, when it is read.
  tried = names: let
    found = builtins.tryEval (builtins.deepSeq names names);
  in
    if found.success
    then found.value
    else [];
  node = value: {
    settings = tried (namesIn value);
    profiles = tried (namesIn (value.profiles or null));
  };

  # What a flake has of a kind by system alone, as `legacyPackages.x86_64-linux.homeConfigurations`, where nixos-rebuild
  # and home-manager find it as well. Only the first system is looked at: for others a flake may be an error.
  systems = ["x86_64-linux" "aarch64-linux"];
  bySystem = kind: output: let
    all = namesIn (outputs.${output} or null);
    system = builtins.head (builtins.filter (each: builtins.elem each all) systems ++ [null]);
    found = outputs.${output}.${system};
  in
    if outputs ? ${kind} || system == null
    then []
    else [
      {
        place = "${output}.${system}.${kind}";
        inherit kind;
        names = tried (
          if builtins.isAttrs found
          then namesIn (found.${kind} or null)
          else []
        );
      }
    ];
in {
  elsewhere =
    if everywhere
    then
      builtins.concatMap (kind: builtins.concatMap (bySystem kind) ["legacyPackages" "packages"]) [
        "nixosConfigurations"
        "homeConfigurations"
      ]
    else [];
  nixosConfigurations = names "nixosConfigurations";
  homeConfigurations = names "homeConfigurations";
  darwinConfigurations = names "darwinConfigurations";
  hosts = plain ((outputs.nixherd or {}).hosts or {});
  deploy =
    if nodes == null
    then null
    else {
      settings = namesIn outputs.deploy;
      nodes =
        if builtins.isAttrs nodes
        then builtins.mapAttrs (_: node) nodes
        else builtins.typeOf nodes;
    };
  # what clan's own program reads, which is there in each clan; it is not looked at here
  clan = outputs ? clanInternals;
  # colmena's hive as it is made by colmena's own function; and what that is made of
  hive =
    if outputs ? colmenaHive
    then builtins.isAttrs outputs.colmenaHive && builtins.isAttrs (outputs.colmenaHive.nodes or null)
    else null;
  hiveNodes = namesIn ((outputs.colmenaHive or {}).nodes or null);
  raw =
    if outputs ? colmenaHive || !(outputs ? colmena)
    then null
    else builtins.isAttrs outputs.colmena && (outputs.colmena ? meta || outputs.colmena ? network);
  rawNodes =
    if outputs ? colmenaHive
    then []
    else namesIn (outputs.colmena or null);
}
