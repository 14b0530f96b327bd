{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      modules = [
        ./hardware-configuration.nix
        {
          networking.hostName = "web";
          specialisation.rescue.configuration.environment.etc.rescue.text = "yes";
          specialisation.gaming = {
            inheritParentConfig = true;
            configuration.boot.consoleLogLevel = 3;
          };
        }
      ];
    };
  };
}
