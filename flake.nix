{
  description = "Provisions, deploys and guards fleets of NixOS and Home Manager machines, on pyinfra";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = {
    self,
    nixpkgs,
  }: let
    inherit (nixpkgs) lib;
    forSystems = make:
      lib.genAttrs ["x86_64-linux" "aarch64-linux"] (system: make (nixpkgs.legacyPackages.${system}.extend self.overlays.default));
    # What a configuration says of itself to nixherd; the machine's part of deployments comes with it.
    nixherd.imports = [
      ./nix/module.nix
      ./fleet/modules/nixos/nixherd.nix
      ./fleet/modules/nixos/pull.nix
    ];
  in {
    overlays.default = import ./nix/overlay.nix;

    packages = forSystems (pkgs: {
      inherit (pkgs) nixherd;
      default = pkgs.nixherd;
      # pyinfra with nixherd's connectors, operations, facts and deploys, for a project of one's own.
      pyinfra = pkgs.python3.withPackages (python: [python.nixherd]);
    });

    apps = forSystems (pkgs: let
      app = program: description: {
        type = "app";
        inherit program;
        meta = {inherit description;};
      };
    in {
      default = app (lib.getExe pkgs.nixherd) "nixherd";
      pyinfra = app "${self.packages.${pkgs.stdenv.hostPlatform.system}.pyinfra}/bin/pyinfra" "pyinfra with nixherd";
    });

    devShells = forSystems (pkgs: {
      # `make` does the rest of the set-up.
      default = pkgs.mkShell {
        packages = [
          pkgs.python3
          pkgs.gnumake
          pkgs.git
          pkgs.openssh
          pkgs.sops
          pkgs.age
          pkgs.shellcheck
          pkgs.alejandra
          pkgs.deadnix
          pkgs.statix
        ];
      };
    });

    nixosModules = {
      inherit nixherd;
      default = nixherd;
    };
    homeModules = {
      nixherd = ./nix/module.nix;
      default = ./nix/module.nix;
    };

    checks = forSystems (pkgs: {inherit (pkgs) nixherd;});
    formatter = forSystems (pkgs: pkgs.alejandra);
  };
}
