{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = {nixpkgs, ...} @ inputs: let
    inherit (nixpkgs) lib;
    hosts = builtins.attrNames (lib.filterAttrs (_: kind: kind == "directory") (builtins.readDir ./hosts));
  in {
    nixosConfigurations = builtins.listToAttrs (map (name: {
        inherit name;
        value = lib.nixosSystem {
          specialArgs = {inherit inputs;};
          modules = [./hosts/${name} {networking.hostName = name;}];
        };
      })
      hosts);
  };
}
