{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    home-manager.url = "github:nix-community/home-manager";
  };

  outputs = {
    nixpkgs,
    home-manager,
    ...
  }: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      modules = [./hardware-configuration.nix {networking.hostName = "web";}];
    };
    homeConfigurations.web = home-manager.lib.homeManagerConfiguration {
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
      modules = [
        ./home.nix
        {
          home.username = "root";
          home.homeDirectory = "/root";
        }
      ];
    };
  };
}
