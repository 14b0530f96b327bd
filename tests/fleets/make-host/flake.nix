{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    home-manager = {
      url = "github:nix-community/home-manager/release-25.11";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = inputs: let
    mkHost = import ./lib/mkHost.nix inputs;
  in {
    nixosConfigurations = {
      web = mkHost {
        hostname = "web";
        user = "al";
      };
      db = mkHost {
        hostname = "db";
        user = "al";
        extraModules = [{services.openssh.settings.PermitRootLogin = "prohibit-password";}];
      };
    };
  };
}
