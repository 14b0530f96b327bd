# Machines that pull: they fetch their system from a cache, and deploy it to themselves with the same guard.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.nixherd.pull;

  # The health checks as a program of the system that they belong to, so that the new system's checks run.
  command = check:
    if check.unit != null
    then "[ \"$(systemctl is-active -- ${lib.escapeShellArg check.unit})\" = active ]"
    else if check.command != null
    then check.command
    else if check.tcp != null
    then "timeout 5 bash -c ${lib.escapeShellArg "</dev/tcp/${address (toString check.tcp)}"}"
    else "[ \"$(curl -s -o /dev/null -m 10 -w '%{http_code}' ${lib.escapeShellArg check.http})\" = ${toString (orElse 200 check.status)} ]";
  address = text: let
    parts = lib.splitString ":" text;
  in
    if lib.length parts == 1
    then "localhost/${text}"
    else "${lib.concatStringsSep ":" (lib.init parts)}/${lib.last parts}";
  orElse = usual: value:
    if value == null
    then usual
    else value;
  health = pkgs.writeShellScript "nixherd-health" ''
    clock() { read -r now _ </proc/uptime && now=''${now%.*}; }
    check() { # name, seconds, command
      clock
      end=$((now + $2))
      until timeout "$2" sh -c "$3" >/dev/null 2>&1; do
        clock
        [ "$now" -lt "$end" ] || { echo "$1 does not pass" && exit 1; }
        sleep 1
      done
    }
    ${lib.concatStrings (lib.mapAttrsToList (name: check: ''
        check ${lib.escapeShellArg name} ${toString (orElse 30 check.timeout)} ${lib.escapeShellArg (command check)}
      '')
      config.nixherd.healthChecks)}
  '';
in {
  options.nixherd.pull = {
    from = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "The URL of a cache that `nixherd publish` fills.";
    };
    publicKey = mkOption {
      type = types.strMatching "[0-9A-Za-z_.+-]+:[0-9A-Za-z+/]{43}=";
      description = "Its public key: both the pointer and the system must be signed by it.";
    };
    dates = mkOption {
      type = types.nullOr types.str;
      default = "03:00";
      description = "When (systemd.time(7)); null: only on request (by homelab.update, a person, or nixherd.access.trigger).";
    };
    spread = mkOption {
      type = types.str;
      default = "30min";
      description = "The random delay of each machine, so that they do not all ask the cache at once.";
    };
  };

  config = lib.mkIf (cfg.from != null) {
    assertions = [
      {
        assertion = config.networking.hostName != "";
        message = "nixherd.pull: networking.hostName must be set: the system is published under it.";
      }
    ];
    environment.etc."nixherd/health".source = health;
    nix.settings.substituters = [cfg.from];
    nix.settings.trusted-public-keys = [cfg.publicKey];
    systemd.services.nixherd-pull = {
      description = "Deploy what was published for this machine";
      after = ["network-online.target"];
      wants = ["network-online.target"];
      path = [pkgs.curl pkgs.nix pkgs.bash pkgs.openssh pkgs.openssl];
      # it is running while the system that contains its next version is activated
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      serviceConfig = {
        Type = "oneshot";
        ExecStart = toString (pkgs.writeShellScript "nixherd-pull" ''
          exec /bin/sh ${./pull.sh} ${lib.escapeShellArgs [cfg.from cfg.publicKey config.networking.hostName]} ${import ./program.nix}
        '');
      };
    };
    systemd.timers.nixherd-pull = lib.mkIf (cfg.dates != null) {
      wantedBy = ["timers.target"];
      timerConfig = {
        OnCalendar = cfg.dates;
        RandomizedDelaySec = cfg.spread;
        Persistent = true;
      };
    };
  };
}
