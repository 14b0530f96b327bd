{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {
    self,
    nixpkgs,
  }: let
    machines = [
      {
        name = "web";
        site = "home";
      }
      {
        name = "db";
        site = "office";
      }
    ];
  in {
    nixosConfigurations = builtins.listToAttrs (map ({
      name,
      site,
    }: {
      name = "${site}-${name}";
      value = nixpkgs.lib.nixosSystem {
        modules = [
          ./hardware-configuration.nix
          {
            networking.hostName = name;
            networking.domain = "${site}.example.org";
            system.configurationRevision = self.rev or self.dirtyRev or null;
          }
        ];
      };
    })
    machines);
  };
}
