{inputs, ...}: {
  flake.nixosConfigurations = {
    web = inputs.nixpkgs.lib.nixosSystem {
      specialArgs = {inherit inputs;};
      modules = [./web];
    };
    db = inputs.nixpkgs.lib.nixosSystem {modules = [./web {networking.hostName = "db";}];};
  };
}
