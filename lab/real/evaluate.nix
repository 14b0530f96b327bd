# Queries to the fleet with its real inputs. `ask` is null for the list of names, or {kind, name}.
{
  fleet,
  sources,
  ask,
}: let
  flake = import ./inputs.nix {inherit fleet sources;};
  system = "x86_64-linux";
  failed = config: map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
  # A configuration with failing assertions has no derivation: the assertions are the result.
  report = config: derivation: {
    inherit (config) warnings;
    failed = failed config;
    derivation =
      if failed config == []
      then derivation.drvPath
      else null;
  };
  of = {
    host = name: let
      inherit (flake.nixosConfigurations.${name}) config;
    in
      report config config.system.build.toplevel
      // {
        # The program that partitions the machine's disks, if it uses disko.
        disko =
          if (config.disko.devices.disk or {}) != {}
          then config.system.build.diskoScript.drvPath
          else null;
      };
    home = name: let
      inherit (flake.homeConfigurations.${name}) config activationPackage;
    in
      report config activationPackage;
    package = name:
      report {
        warnings = [];
        assertions = [];
      }
      flake.packages.${system}.${name};
  };
in
  if ask == null
  then {
    host = builtins.attrNames (flake.nixosConfigurations or {});
    home = builtins.attrNames (flake.homeConfigurations or {});
    package = builtins.attrNames (flake.packages.${system} or {});
    version = flake.inputs.nixpkgs.lib.version;
  }
  else of.${ask.kind} ask.name
