# What `nix flake check` builds: every machine, every home, and the program that makes a machine's disks. A flake's other
# outputs it only evaluates, and passes over a system whose files are wrong.
{
  lib,
  nixosConfigurations,
  homeConfigurations,
}: let
  # The kind comes first: no name of a host makes one of two the same.
  named = kind: lib.mapAttrs' (id: lib.nameValuePair "${kind}-${id}");
  # disko's program for a machine without disks of its own is an error.
  hasDisks = _: host: host.config.disko.devices.disk != {};
in
  named "host" (lib.mapAttrs (_: host: host.config.system.build.toplevel) nixosConfigurations)
  // named "home" (lib.mapAttrs (_: home: home.activationPackage) homeConfigurations)
  // named "disko" (lib.mapAttrs (_: host: host.config.system.build.diskoScript) (lib.filterAttrs hasDisks nixosConfigurations))
