{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
    nix-darwin = {
      url = "github:nix-darwin/nix-darwin";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = {
    nixpkgs,
    nix-darwin,
    ...
  }: {
    darwinConfigurations."Als-MacBook-Pro" = nix-darwin.lib.darwinSystem {modules = [./darwin.nix];};
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      modules = [./hardware-configuration.nix {networking.hostName = "web";}];
    };
  };
}
