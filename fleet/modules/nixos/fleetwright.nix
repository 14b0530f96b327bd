# What a deployment has to see before it keeps a new system; without it, that is what runs, its hostname and its units.
{lib, ...}: let
  inherit (lib) mkOption types;
  maybe = type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
in {
  options.fleetwright.healthChecks = mkOption {
    description = "Checks by name, each with one of unit, command, tcp and http; the machine asks itself.";
    default = {};
    type = types.attrsOf (types.submodule {
      options = {
        unit = maybe types.str "A unit that has to be active.";
        command = maybe types.str "A shell text, run by root, that has to end with 0.";
        tcp = maybe (types.either types.port types.str) "A port, or HOST:PORT, that has to take a connection.";
        http = maybe types.str "An http:// URL that has to answer.";
        status = maybe types.int "With which status; 200 unless said.";
        timeout = maybe types.int "Seconds in which it has to pass; 30 unless said.";
      };
    });
  };
}
