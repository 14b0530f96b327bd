# Stands in for github:nix-community/nixos-images: the same output and tarball, but `kexec/run` asks the lab for the jump.
{
  # The input names of the real flake, so that `follows` resolves.
  inputs.nixos-unstable.url = "nixpkgs";
  inputs.nixos-stable.url = "nixpkgs";

  outputs =
    { self, ... }:
    let
      installer = derivation {
        name = "kexec-tarball";
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [
          "-euc"
          ''
            mkdir -p kexec $out
            cp $run kexec/run
            chmod +x kexec/run
            tar --sort=name --mtime=@1 --owner=0 --group=0 -czf $out/nixos-kexec-installer-noninteractive-x86_64-linux.tar.gz kexec
          ''
        ];
        PATH = "/usr/bin:/bin:/run/current-system/sw/bin";
        run = ./kexec/run;
      };
    in
    {
      packages.x86_64-linux = {
        kexec-installer-nixos-unstable-noninteractive = installer;
        kexec-installer-nixos-stable-noninteractive = installer;
      };
      # For a custom installer: modules do not change the tarball, because the lab's installer has everything.
      nixosModules = {
        kexec-installer =
          { lib, ... }:
          {
            options.system.kexec-installer.name = lib.mkOption { type = lib.types.str; };
            config.system.build.kexecInstallerTarball = installer;
          };
        noninteractive = { };
      };
    };
}
