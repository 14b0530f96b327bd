# Units: real files for the real systemd. Debian's own units stay below /usr and are linked or masked from here.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.systemd;
  inherit (import ./unit-options.nix lib) common section service strings units;
  inherit (import ./unit-text.nix {inherit lib pkgs;}) one sections serviceText;

  kinds = {
    service = {
      set = cfg.services;
      text = serviceText;
    };
    socket = {
      set = lib.mapAttrs (_: u: u // {socketConfig = {ListenStream = u.listenStreams;} // u.socketConfig;}) cfg.sockets;
      text = sections (one "Socket" "socketConfig");
    };
    timer = {
      set = cfg.timers;
      text = sections (one "Timer" "timerConfig");
    };
    path = {
      set = cfg.paths;
      text = sections (one "Path" "pathConfig");
    };
    target = {
      set = cfg.targets;
      text = sections [];
    };
    slice = {
      set = cfg.slices;
      text = sections (one "Slice" "sliceConfig");
    };
    mount = {
      set = mounts cfg.mounts "Mount" "mountConfig";
      text = sections (one "Mount" "mountConfig");
    };
    automount = {
      set = mounts cfg.automounts "Automount" "automountConfig";
      text = sections (one "Automount" "automountConfig");
    };
  };
  mounts = list: _: attr:
    lib.listToAttrs (map (m:
      lib.nameValuePair (lib.escapeSystemdPath m.where) (m
        // {
          ${attr} =
            {Where = m.where;}
            // lib.optionalAttrs (m ? what) {
              What = m.what;
              Type = m.type;
              Options = m.options;
            }
            // m.${attr};
        }))
    list);
  all = lib.concatLists (lib.mapAttrsToList (kind: k:
    lib.mapAttrsToList (name: u: {
      name = "${name}.${kind}";
      inherit (u) enable wantedBy requiredBy upheldBy aliases;
      dropin = isDebian "${name}.${kind}" || u.overrideStrategy == "asDropin";
      text = k.text name u;
    })
    k.set)
  kinds);
  # Debian ships these below /usr/lib/systemd/system; settings for them are drop-ins.
  isDebian = unit:
    lib.hasPrefix "systemd-" unit
    && lib.hasSuffix ".service" unit
    || lib.elem unit [
      "dbus.service"
      "dbus.socket"
      "basic.target"
      "multi-user.target"
      "network.target"
      "network-online.target"
      "sysinit.target"
      "timers.target"
      "sockets.target"
      "local-fs.target"
      "shutdown.target"
    ];

  masked = [
    "apt-daily.timer"
    "apt-daily-upgrade.timer"
    "console-getty.service"
    "dpkg-db-backup.timer"
    "e2scrub_all.timer"
    "e2scrub_reap.service"
    "getty-static.service"
    "getty@tty1.service"
    "ldconfig.service"
    "ssh.service"
    "ssh.socket"
    "systemd-firstboot.service"
    "systemd-journal-catalog-update.service"
    "systemd-hostnamed.service"
    "systemd-logind.service"
    "systemd-random-seed.service"
    "systemd-remount-fs.service"
    "systemd-resolved.service"
    "systemd-sysusers.service"
    "systemd-timesyncd.service"
    "systemd-update-done.service"
    "systemd-pcrphase.service"
    "systemd-machine-id-commit.service"
  ];
  place = u: let
    text = lib.escapeShellArg u.text;
    file =
      if u.dropin
      then "${u.name}.d/overrides.conf"
      else u.name;
    link = dir: other: "mkdir -p ${lib.escapeShellArg "${other}.${dir}"}; ln -sf ${lib.escapeShellArg (
      if u.dropin
      then "/usr/lib/systemd/system/${u.name}"
      else "../${u.name}"
    )} ${lib.escapeShellArg "${other}.${dir}/${u.name}"}\n";
  in
    if !u.enable
    then "ln -sf /dev/null ${lib.escapeShellArg u.name}\n"
    else
      lib.optionalString (u.text != "") "${lib.optionalString u.dropin "mkdir -p ${lib.escapeShellArg "${u.name}.d"}; "}printf %s ${text} >${lib.escapeShellArg file}\n"
      + lib.concatMapStrings (link "wants") u.wantedBy
      + lib.concatMapStrings (link "requires") u.requiredBy
      + lib.concatMapStrings (link "upholds") u.upheldBy
      + lib.concatMapStrings (alias: "ln -sf ${lib.escapeShellArg u.name} ${lib.escapeShellArg alias}\n") u.aliases;
in {
  options.systemd = {
    services = units service;
    sockets = units ({
        listenStreams = strings;
        listenDatagrams = strings;
      }
      // section "socketConfig");
    timers = units (section "timerConfig");
    paths = units (section "pathConfig");
    targets = units {};
    slices = units (section "sliceConfig");
    mounts = mkOption {
      default = [];
      type = types.listOf (types.submodule {
        options =
          common
          // section "mountConfig"
          // {
            what = mkOption {type = types.str;};
            where = mkOption {type = types.str;};
            type = mkOption {
              type = types.str;
              default = "";
            };
            options = mkOption {
              type = types.commas;
              default = "";
            };
          };
      });
    };
    automounts = mkOption {
      default = [];
      type = types.listOf (types.submodule {options = common // section "automountConfig" // {where = mkOption {type = types.str;};};});
    };
    tmpfiles = {
      rules = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      settings = mkOption {
        type = types.attrsOf types.anything;
        default = {};
      };
    };
    packages = mkOption {
      type = types.listOf types.package;
      default = [];
    };
    sleep.settings.Sleep = mkOption {
      type = types.attrsOf types.anything;
      default = {};
    };
    settings.Manager = mkOption {
      type = types.attrsOf types.anything;
      default = {};
    };
    enableEmergencyMode = mkOption {
      type = types.bool;
      default = true;
    };
    coredump.enable = mkOption {
      type = types.bool;
      default = true;
    };
    oomd.enable = mkOption {
      type = types.bool;
      default = true;
    };
    defaultUnit = mkOption {
      type = types.str;
      default = "multi-user.target";
    };
    globalEnvironment = mkOption {
      type = types.attrsOf types.unspecified;
      default = {};
    };
    maskedUnits = mkOption {
      type = types.listOf types.str;
      default = masked;
      internal = true;
    };
  };

  config = {
    # services with `startAt` have a timer
    systemd.timers =
      lib.mapAttrs (_: s: {
        wantedBy = ["timers.target"];
        timerConfig.OnCalendar = s.startAt;
      })
      (lib.filterAttrs (_: s: s.enable && s.startAt != []) cfg.services);
    assertions =
      map (u: {
        assertion = !lib.hasInfix "/" u.name;
        message = "systemd unit name `${u.name}' has a slash in it.";
      })
      all;

    system.build.units = pkgs.runCommand "system-units" {} ''
      mkdir -p "$out"; cd "$out"
      ${lib.concatMapStrings (u: "ln -s /dev/null ${u}\n") cfg.maskedUnits}
      ln -s /usr/lib/systemd/system/${cfg.defaultUnit} default.target
      ${lib.concatMapStrings place all}
    '';
    environment.etc = {
      "systemd/system".source = config.system.build.units;
      "systemd/system.conf".text = "[Manager]\n" + lib.generators.toKeyValue {} cfg.settings.Manager;
      "systemd/journald.conf".text = "[Journal]\nStorage=persistent\n${config.services.journald.extraConfig}";
      "tmpfiles.d/00-nixos.conf".text =
        lib.concatMapStrings (rule: rule + "\n") (cfg.tmpfiles.rules
          ++ lib.concatLists (lib.mapAttrsToList (_: paths: lib.concatLists (lib.mapAttrsToList (path: types: lib.mapAttrsToList (type: o: "${type} ${path} ${o.mode or "-"} ${o.user or "-"} ${o.group or "-"} ${o.age or "-"} ${o.argument or ""}") types) paths)) cfg.tmpfiles.settings));
    };
  };
}
