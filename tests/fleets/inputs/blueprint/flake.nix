{
  description = "A stand-in for blueprint: hosts by their directories, their users' homes below legacyPackages";

  outputs = _: {
    __functor = _: {inputs, ...}: let
      inherit (inputs.nixpkgs) lib;
      src = inputs.self;
      hosts = builtins.readDir (src + "/hosts");
      system = "x86_64-linux";
      usersOf = host: let
        place = src + "/hosts/${host}/users";
      in
        lib.optionals (builtins.pathExists place) (map (lib.removeSuffix ".nix") (builtins.attrNames (builtins.readDir place)));
    in {
      nixosConfigurations = lib.mapAttrs (name: _:
        lib.nixosSystem {
          specialArgs = {
            inherit inputs;
            flake = src;
            hostName = name;
          };
          modules = [(src + "/hosts/${name}/configuration.nix") {networking.hostName = lib.mkDefault name;}];
        })
      hosts;
      legacyPackages.${system}.homeConfigurations = lib.concatMapAttrs (host: _:
        lib.listToAttrs (map (user: {
          name = "${user}@${host}";
          value = inputs.home-manager.lib.homeManagerConfiguration {
            pkgs = inputs.nixpkgs.legacyPackages.${system};
            modules = [
              (src + "/hosts/${host}/users/${user}.nix")
              {
                home.username = user;
                home.homeDirectory = "/home/${user}";
              }
            ];
          };
        }) (usersOf host)))
      hosts;
    };
  };
}
