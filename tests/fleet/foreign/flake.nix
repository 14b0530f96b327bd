# Another's flake, which takes the fleet's modules and has none of its special arguments. FLEET is where the fleet is.
{
  inputs.fleet.url = "path:FLEET";

  outputs = {fleet, ...}: let
    inherit (fleet.inputs) nixpkgs home-manager sops-nix;
    system = modules:
      nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        # an argument with one of our names, and another meaning
        specialArgs.hostname = {is = "not a text";};
        modules =
          [
            fleet.nixosModules.default
            {
              networking.hostName = "foreign";
              boot.loader.systemd-boot.enable = true;
              fileSystems."/" = {
                device = "/dev/sda2";
                fsType = "ext4";
              };
            }
          ]
          ++ modules;
      };
    home = modules:
      home-manager.lib.homeManagerConfiguration {
        pkgs = nixpkgs.legacyPackages.x86_64-linux;
        modules =
          [
            fleet.homeModules.default
            {
              home.username = "ann";
              home.homeDirectory = "/home/ann";
              home.stateVersion = "25.11";
            }
          ]
          ++ modules;
      };
  in {
    nixosConfigurations = {
      bare = system [];
      base = system [fleet.nixosModules.base];
      ssh = system [{homelab.ssh.enable = true;}];
      all = system [
        sops-nix.nixosModules.sops
        {
          homelab = {
            ssh.enable = true;
            tailscale = {
              enable = true;
              tpmOverride = true;
              lanSubnets = ["10.0.0.0/24"];
            };
            nixCaches = {
              enable = true;
              nixServe.url = "https://cache.example.org";
              nixServe.publicKey = "cache-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
            };
            cache = {
              enable = true;
              mirrorHost = "mirror.example.org";
              localHost = "cache.example.org";
              nixServeSecretKeyFile = "/run/key";
            };
            nginx.acmeEmail = "a@example.org";
            nginx.cloudflareSopsFile = ./secret.env;
            services.githubRunner = {
              enable = true;
              repoUrl = "https://github.com/example/fleet";
              tokenFile = "/run/token";
            };
          };
        }
      ];
    };
    homeConfigurations = {
      bare = home [];
      secret = home [
        sops-nix.homeManagerModules.sops
        {sops.secrets.token.sopsFile = ./secret.env;}
      ];
    };
  };
}
