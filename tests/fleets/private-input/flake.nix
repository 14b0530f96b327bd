{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    work.url = "git+ssh://git@work.invalid/al/work.git";
  };

  outputs = {
    nixpkgs,
    work,
    ...
  }: {
    nixosConfigurations = {
      web = nixpkgs.lib.nixosSystem {
        modules = [./hardware-configuration.nix {networking.hostName = "web";}];
      };
      office = nixpkgs.lib.nixosSystem {
        modules = [./hardware-configuration.nix work.nixosModules.office];
      };
    };
  };
}
