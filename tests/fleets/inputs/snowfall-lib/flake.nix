{
  description = "A stand-in for snowfall-lib: systems and homes by their directories";

  outputs = _: {
    mkFlake = {
      inputs,
      src,
      ...
    }: let
      inherit (inputs.nixpkgs) lib;
      # Each NAME of PART/SYSTEM/NAME, by what `make` makes of it.
      each = part: make: let
        place = src + "/${part}";
        of = system: lib.mapAttrs (name: _: make system name (place + "/${system}/${name}")) (builtins.readDir (place + "/${system}"));
      in
        lib.optionalAttrs (builtins.pathExists place) (lib.concatMapAttrs (system: _: of system) (builtins.readDir place));
    in {
      nixosConfigurations = each "systems" (system: name: path:
        lib.nixosSystem {
          inherit system;
          specialArgs = {inherit inputs;};
          modules = [path {networking.hostName = lib.mkDefault name;}];
        });
      homeConfigurations = each "homes" (system: name: path: let
        username = builtins.head (lib.splitString "@" name);
      in
        inputs.home-manager.lib.homeManagerConfiguration {
          pkgs = inputs.nixpkgs.legacyPackages.${system};
          modules = [
            path
            {
              home = {
                inherit username;
                homeDirectory = lib.mkDefault "/home/${username}";
              };
            }
          ];
        });
    };
  };
}
