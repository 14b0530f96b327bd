{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    deploy-rs.url = "github:serokell/deploy-rs";
  };

  outputs = {
    self,
    nixpkgs,
    deploy-rs,
    ...
  }: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      modules = [./hardware-configuration.nix {networking.hostName = "web";}];
    };

    deploy.nodes.web = {
      hostname = "web.example.org";
      sshUser = "root";
      profiles.service.path = deploy-rs.lib.x86_64-linux.activate.custom ./hardware-configuration.nix "./bin/start";
    };
  };
}
