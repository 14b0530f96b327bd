{
  description = "A stand-in for nixpkgs: its module system and a NixOS that runs on the lab's light hosts";

  outputs = {self}: let
    lib = (import ./lib).extend (_: _: {
      nixosSystem = args: import ./nixos/lib/eval-config.nix ({inherit lib;} // args);
    });
  in {
    inherit lib;
    legacyPackages = lib.genAttrs ["x86_64-linux" "aarch64-linux"] (system: import ./pkgs {inherit lib system;});
    nixosModules = {};
  };
}
