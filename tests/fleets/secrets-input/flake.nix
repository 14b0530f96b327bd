{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    mysecrets = {
      url = "git+ssh://git@secrets.invalid/al/secrets.git";
      flake = false;
    };
  };

  outputs = {
    nixpkgs,
    mysecrets,
    ...
  }: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      modules = [
        ./hardware-configuration.nix
        {
          networking.hostName = "web";
          environment.etc."secrets/web.yaml".source = "${mysecrets}/hosts/web.yaml";
        }
      ];
    };
  };
}
