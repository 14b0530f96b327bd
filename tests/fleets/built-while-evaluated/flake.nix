{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs = {nixpkgs, ...}: let
    # A file that is made while the flake is evaluated.
    made = derivation {
      name = "name.nix";
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = ["-c" "echo '\"web\"' >$out"];
    };
    broken = derivation {
      name = "broken.nix";
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = ["-c" "exit 1"];
    };
    host = name: nixpkgs.lib.nixosSystem {modules = [./hardware-configuration.nix {networking.hostName = name;}];};
  in {
    nixosConfigurations = {
      web = host (import "${made}");
      db = host (import "${broken}");
    };
  };
}
