{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: {
    colmena = {
      meta = {
        nixpkgs = import nixpkgs {
          system = "x86_64-linux";
          overlays = [];
        };
        specialArgs.domain = "example.org";
      };
      defaults = {
        name,
        domain,
        ...
      }: {
        imports = [./hardware-configuration.nix];
        networking.hostName = name;
        deployment.targetHost = "${name}.${domain}";
      };
      web = {nodes, ...}: {
        deployment.tags = ["front"];
        environment.etc.database.text = nodes.db.config.networking.hostName;
      };
      db.deployment.targetUser = "root";
    };
  };
}
