# The unit of a stack. A change of the stack or its secrets reloads it: docker compose recreates the containers that
# differ, and leaves the others alone.
{
  cfg,
  docker,
  lib,
  pkgs,
}: let
  # A path in a unit's list of paths.
  quote = path: builtins.toJSON (lib.replaceStrings ["%"] ["%%"] path);
  call = name: stack: "${docker}/bin/docker compose --project-name ${name} --file ${stack.composeFile}";
  # Fetching images happens before the wait for health: the time limit must cover both.
  waits = stack: toString (lib.max 1 (stack.startTimeout - 10));

  up = name: stack:
    pkgs.writeShellScript "stack-${name}-up" ''
      set -eu
      directory() { # path, mode, owner, group: created atomically, and only once
        [ -d "$1" ] && return
        ${pkgs.coreutils}/bin/install -d -m "$2" -o "$3" -g "$4" "$1.making"
        ${pkgs.coreutils}/bin/mv -T "$1.making" "$1"
      }
      ${pkgs.coreutils}/bin/mkdir -p ${lib.escapeShellArg "${cfg.dataDirectory}/${name}"}
      ${lib.concatStrings (lib.concatLists (lib.mapAttrsToList (_: service:
        lib.mapAttrsToList (data: d: ''
          directory ${lib.escapeShellArgs ["${cfg.dataDirectory}/${name}/${data}" d.mode (toString d.owner) (toString d.group)]}
        '')
        service.data)
      stack.services))}
      ${lib.concatMapStrings (network: ''
        ${docker}/bin/docker network inspect ${lib.escapeShellArg network} >/dev/null 2>&1 || ${docker}/bin/docker network create ${lib.escapeShellArg network} >/dev/null
      '') (lib.attrNames (lib.filterAttrs (_: n: n.external) stack.networks))}
      exec ${call name stack} up --detach --remove-orphans --wait --wait-timeout ${waits stack}
    '';
  paths = stack: lib.unique (lib.concatMap (service: map (m: m.source) service.mounts) (lib.attrValues stack.services));

  unit = name: stack: {
    description = "${stack.description} (docker compose)";
    wantedBy = ["multi-user.target"];
    requires = ["docker.service"];
    wants = ["network-online.target"];
    # sops-nix decrypts at activation, or in a separate unit if configured.
    after = ["docker.service" "network-online.target" "sops-install-secrets.service"];
    unitConfig.RequiresMountsFor = map quote ([cfg.dataDirectory] ++ paths stack);
    reloadIfChanged = true;
    # An unreachable registry is retried for a while; then the unit fails.
    startLimitBurst = 5;
    startLimitIntervalSec = 6 * (stack.startTimeout + 60);
    # Where root's `docker login` stores its credentials.
    environment.HOME = "/root";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = toString (up name stack);
      ExecReload = toString (up name stack);
      ExecStop = "${call name stack} down --timeout ${toString stack.stopTimeout}";
      TimeoutStartSec = stack.startTimeout;
      # One after another: a container stops before those that it depends on.
      TimeoutStopSec = 2 * stack.stopTimeout + 30;
      Restart = "on-failure";
      RestartSec = 60;
    };
  };
in {
  __functor = _: unit;
  inherit quote;
}
