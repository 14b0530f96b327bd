# What `nix flake check` builds: every machine, every home, and the program that partitions a machine's disks. The other
# outputs of a flake are only evaluated, and a system whose files are wrong passes that.
{
  lib,
  nixosConfigurations,
  homeConfigurations,
}: let
  # The kind comes first, so that no two names collide.
  named = kind: lib.mapAttrs' (id: lib.nameValuePair "${kind}-${id}");
  # disko's program fails for a machine without declared disks.
  hasDisks = _: host: host.config.disko.devices.disk != {};
in
  named "host" (lib.mapAttrs (_: host: host.config.system.build.toplevel) nixosConfigurations)
  // named "home" (lib.mapAttrs (_: home: home.activationPackage) homeConfigurations)
  // named "disko" (lib.mapAttrs (_: host: host.config.system.build.diskoScript) (lib.filterAttrs hasDisks nixosConfigurations))
