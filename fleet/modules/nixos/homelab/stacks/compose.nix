# Converts the options to a compose file.
{
  cfg,
  envFiles,
  lib,
  timeZone,
}: let
  # Compose replaces $NAME in every string; none is meant that way here.
  literal = value:
    if lib.isString value
    then lib.replaceStrings ["$"] ["$$"] value
    else if lib.isList value
    then map literal value
    else if lib.isAttrs value
    then lib.mapAttrs (_: literal) value
    else value;
  # Variables and labels are strings, even if they look like numbers.
  text = value:
    if lib.isBool value
    then lib.boolToString value
    else toString value;
  given = lib.filterAttrs (_: value: value != null && value != [] && value != {});

  dataPath = stack: name: "${cfg.dataDirectory}/${stack}/${name}";
  kept = stack: service: lib.mapAttrsToList (name: _: dataPath stack name) (lib.filterAttrs (_: d: d.backup) service.data);
  bind = source: target: readOnly: {
    type = "bind";
    inherit source target;
    read_only = readOnly;
    # A missing source is probably a disk that is not mounted: an error, not a new empty directory.
    bind.create_host_path = false;
  };

  labels = stack: service:
    {
      "homelab.stack" = stack;
      "homelab.update" = service.update;
      "com.centurylinklabs.watchtower.enable" = text (service.update != "off");
      "com.centurylinklabs.watchtower.monitor-only" = text (service.update != "automatic");
      "diun.enable" = text (service.update != "off");
      "homelab.backup" = text (kept stack service != []);
      "docker-volume-backup.stop-during-backup" = text service.stopDuringBackup;
    }
    // lib.optionalAttrs (kept stack service != []) {"homelab.backup.paths" = lib.concatStringsSep "," (kept stack service);}
    // service.labels;

  healthCheck = check:
    if check == "image"
    then null
    else if check == "none"
    then {disable = true;}
    else {
      test =
        if lib.isString check.command
        then ["CMD-SHELL" check.command]
        else ["CMD"] ++ check.command;
      inherit (check) interval timeout retries;
      start_period = check.startPeriod;
    };

  container = stack: all: service:
    given {
      inherit (service) command devices image restart user;
      environment = lib.mapAttrs (_: text) (lib.optionalAttrs (timeZone != null) {TZ = timeZone;} // service.environment);
      # As in the file: no quotes, no $NAME.
      env_file = map (path: {
        inherit path;
        required = true;
        format = "raw";
      }) (envFiles stack service);
      ports = lib.optionals (!service.hostNetwork) (map (port: {
          target = port.container;
          published = toString port.host;
          inherit (port) protocol;
          host_ip = port.address;
        })
        service.ports);
      volumes =
        lib.mapAttrsToList (name: d: bind (dataPath stack name) d.target false) service.data
        ++ map (m: bind m.source m.target m.readOnly) service.mounts;
      networks = lib.optionals (!service.hostNetwork) service.networks;
      network_mode =
        if service.hostNetwork
        then "host"
        else null;
      depends_on = lib.genAttrs (lib.intersectLists service.dependsOn (lib.attrNames all)) (name: {
        condition =
          if all.${name}.healthCheck == "none"
          then "service_started"
          else "service_healthy";
      });
      healthcheck = healthCheck service.healthCheck;
      cap_add = service.capabilities;
      security_opt = lib.optional service.noNewPrivileges "no-new-privileges:true";
      mem_limit = service.memory;
      labels = labels stack service;
    }
    // service.extra;
in {
  text = name: stack:
    literal (given {
      inherit name;
      services = lib.mapAttrs (_: container name stack.services) stack.services;
      networks = lib.mapAttrs (network: n:
        if n.external
        then {
          external = true;
          name = network;
        }
        else {inherit (n) internal;})
      stack.networks;
    });
  backupPaths = name: stack: lib.unique (lib.concatMap (kept name) (lib.attrValues stack.services));
}
