{
  description = "A stand-in for import-tree: a module that imports every file below a directory";

  outputs = _: {
    __functor = _: place: let
      below = path:
        builtins.concatMap (name: let
          kind = (builtins.readDir path).${name};
          here = path + "/${name}";
        in
          if kind == "directory"
          then below here
          else if builtins.match ".*[.]nix" name != null
          then [here]
          else []) (builtins.attrNames (builtins.readDir path));
    in {imports = below place;};
  };
}
