{
  description = "A stand-in for flake-utils: outputs by system";

  outputs = _: {
    lib.eachDefaultSystem = outputsOf: let
      systems = ["x86_64-linux" "aarch64-linux"];
      names = builtins.attrNames (outputsOf "x86_64-linux");
      bySystem = name:
        builtins.listToAttrs (map (system: {
            name = system;
            value = (outputsOf system).${name};
          })
          systems);
    in
      builtins.listToAttrs (map (name: {
          inherit name;
          value = bySystem name;
        })
        names);
  };
}
