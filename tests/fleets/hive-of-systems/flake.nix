{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {
    self,
    nixpkgs,
    ...
  }: let
    systems = self.nixosConfigurations;
  in {
    nixosConfigurations = nixpkgs.lib.genAttrs ["web" "db"] (name:
      nixpkgs.lib.nixosSystem {
        specialArgs.role = name;
        modules = [./hardware-configuration.nix ({role, ...}: {networking.hostName = role;})];
      });

    colmena =
      {
        meta = {
          nixpkgs = import nixpkgs {system = "x86_64-linux";};
          nodeNixpkgs = builtins.mapAttrs (_: each: each.pkgs) systems;
          nodeSpecialArgs = builtins.mapAttrs (_: each: each._module.specialArgs) systems;
        };
      }
      // builtins.mapAttrs (name: each: {
        imports = each._module.args.modules;
        deployment.targetHost = "${name}.example.org";
      })
      systems;
  };
}
