# Machines that pull: they fetch what was built for them from a cache, and deploy it to themselves under the same guard.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.nixherd.pull;

  # The health checks as a program of the system that they belong to: it is the new one's that are asked.
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
      description = "Its public key: what is to run, and the system itself, have to be signed by it.";
    };
    dates = mkOption {
      type = types.nullOr types.str;
      default = "03:00";
      description = "When, as systemd.time(7) has it; null: only when it is told to (by homelab.update, a person, or nixherd.access.trigger).";
    };
    spread = mkOption {
      type = types.str;
      default = "30min";
      description = "Over how long machines spread, so that a cache is not asked by all of them at once.";
    };
  };

  config = lib.mkIf (cfg.from != null) {
    assertions = [
      {
        assertion = config.networking.hostName != "";
        message = "nixherd.pull: networking.hostName has to say what is published for this machine.";
      }
    ];
    environment.etc."nixherd/health".source = health;
    nix.settings.substituters = [cfg.from];
    nix.settings.trusted-public-keys = [cfg.publicKey];
    systemd.services.nixherd-pull = {
      description = "Deploy what was built for this machine";
      after = ["network-online.target"];
      wants = ["network-online.target"];
      path = [pkgs.curl pkgs.nix pkgs.bash pkgs.openssh pkgs.openssl];
      # it is at work while the system that has another one of it is activated
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
