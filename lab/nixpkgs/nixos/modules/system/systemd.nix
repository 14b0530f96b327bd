# Units: real files for the real systemd. Debian's own units stay below /usr and are linked or masked from here.
{config, lib, pkgs, ...}: let
  inherit (lib) mkOption types;
  cfg = config.systemd;
  atom = types.nullOr (types.oneOf [types.bool types.int types.float types.str types.path types.package]);
  setting = types.attrsOf (types.either atom (types.listOf atom));
  strings = mkOption {type = types.listOf types.str; default = [];};
  lines = mkOption {type = types.lines; default = "";};

  common = {
    enable = mkOption {type = types.bool; default = true;};
    description = mkOption {type = types.str; default = "";};
    documentation = strings;
    unitConfig = mkOption {type = setting; default = {};};
    overrideStrategy = mkOption {type = types.enum ["asDropinIfExists" "asDropin"]; default = "asDropinIfExists";};
    startLimitBurst = mkOption {type = types.nullOr types.int; default = null;};
    startLimitIntervalSec = mkOption {type = types.nullOr types.int; default = null;};
    restartTriggers = mkOption {type = types.listOf types.unspecified; default = [];};
    reloadTriggers = mkOption {type = types.listOf types.unspecified; default = [];};
  } // lib.genAttrs ["after" "aliases" "before" "bindsTo" "conflicts" "onFailure" "onSuccess" "partOf" "requiredBy" "requires" "requisite"
    "upholds" "upheldBy" "wantedBy" "wants"] (_: strings);
  service = {
    serviceConfig = mkOption {type = setting; default = {};};
    environment = mkOption {type = types.attrsOf (types.nullOr (types.oneOf [types.str types.path types.package types.int])); default = {};};
    path = mkOption {type = types.listOf (types.oneOf [types.package types.str]); default = [];};
    script = lines;
    scriptArgs = mkOption {type = types.str; default = "";};
    preStart = lines;
    postStart = lines;
    preStop = lines;
    postStop = lines;
    reload = lines;
    restartIfChanged = mkOption {type = types.bool; default = true;};
    reloadIfChanged = mkOption {type = types.bool; default = false;};
    stopIfChanged = mkOption {type = types.bool; default = true;};
    notSocketActivated = mkOption {type = types.bool; default = false;};
    confinement = mkOption {type = types.attrs; default = {};};
    startAt = mkOption {type = types.coercedTo types.str lib.singleton (types.listOf types.str); default = [];};
  };
  section = name: {${name} = mkOption {type = setting; default = {};};};
  units = options: mkOption {default = {}; type = types.attrsOf (types.submodule {options = common // options;});};

  # ---- a unit's text ----
  show = v: if v == true then "true" else if v == false then "false" else toString v;
  render = name: settings: let
    entries = lib.filterAttrs (_: v: v != null && v != []) settings;
  in
    lib.optionalString (entries != {}) ("[${name}]\n" + lib.concatStrings (lib.mapAttrsToList (key: v:
      lib.concatMapStrings (one: "${key}=${show one}\n") (lib.toList v))
    entries) + "\n");
  triggers = name: values: lib.optionalAttrs (values != []) {${name} = builtins.hashString "sha256" (lib.concatMapStringsSep "\n" (v: if lib.isAttrs v && !lib.isDerivation v then builtins.toJSON v else toString v) values);};
  unitSection = u: {
    Description = if u.description == "" then null else u.description;
    Documentation = u.documentation;
    After = lib.concatStringsSep " " u.after;
    Before = lib.concatStringsSep " " u.before;
    BindsTo = u.bindsTo; Conflicts = u.conflicts; OnFailure = u.onFailure; OnSuccess = u.onSuccess; PartOf = u.partOf;
    Requires = u.requires; Requisite = u.requisite; Upholds = u.upholds; Wants = u.wants;
    StartLimitBurst = u.startLimitBurst; StartLimitIntervalSec = u.startLimitIntervalSec;
  } // triggers "X-Restart-Triggers" u.restartTriggers // triggers "X-Reload-Triggers" u.reloadTriggers // u.unitConfig;
  clean = lib.filterAttrs (_: v: v != "");

  command = name: kind: text: "${pkgs.writeShellScript "unit-script-${lib.strings.sanitizeDerivationName name}-${kind}" "set -e\n${text}\n"}";
  hook = name: kind: key: text: lib.optionalAttrs (text != "") {${key} = [(command name kind text)];};
  serviceText = name: s: let
    given = s.serviceConfig;
    # `script` and the like come beside what serviceConfig says of the same key
    hooks = lib.zipAttrsWith (_: lib.concatLists) (map (lib.mapAttrs (_: lib.toList)) [
      (hook name "pre-start" "ExecStartPre" s.preStart)
      (lib.optionalAttrs (s.script != "") {ExecStart = "${command name "start" s.script}${lib.optionalString (s.scriptArgs != "") " ${s.scriptArgs}"}";})
      (hook name "post-start" "ExecStartPost" s.postStart)
      (hook name "reload" "ExecReload" s.reload)
      (hook name "pre-stop" "ExecStop" s.preStop)
      (hook name "post-stop" "ExecStopPost" s.postStop)
      (lib.filterAttrs (key: _: lib.hasPrefix "Exec" key) given)
    ]);
    path = lib.concatMapStrings (p: "${toString p}/bin:") s.path;
    environment = {PATH = "${path}/run/current-system/sw/bin:/usr/bin:/usr/sbin";} // s.environment;
    switches = {
      X-RestartIfChanged = if s.restartIfChanged then null else false;
      X-ReloadIfChanged = if s.reloadIfChanged then true else null;
      X-StopIfChanged = if s.stopIfChanged then null else false;
    };
  in
    render "Unit" (clean (unitSection s))
    + render "Service" ({Environment = lib.mapAttrsToList (n: v: builtins.toJSON "${n}=${toString v}") (lib.filterAttrs (_: v: v != null) environment);}
      // switches // given // hooks);
  sections = names: _: u: render "Unit" (clean (unitSection u)) + lib.concatMapStrings (s: render s.name u.${s.attr}) names;
  one = name: attr: [{inherit name attr;}];

  kinds = {
    service = {set = cfg.services; text = serviceText;};
    socket = {set = lib.mapAttrs (_: u: u // {socketConfig = {ListenStream = u.listenStreams;} // u.socketConfig;}) cfg.sockets; text = sections (one "Socket" "socketConfig");};
    timer = {set = cfg.timers; text = sections (one "Timer" "timerConfig");};
    path = {set = cfg.paths; text = sections (one "Path" "pathConfig");};
    target = {set = cfg.targets; text = sections [];};
    slice = {set = cfg.slices; text = sections (one "Slice" "sliceConfig");};
    mount = {set = mounts cfg.mounts "Mount" "mountConfig"; text = sections (one "Mount" "mountConfig");};
    automount = {set = mounts cfg.automounts "Automount" "automountConfig"; text = sections (one "Automount" "automountConfig");};
  };
  mounts = list: _: attr: lib.listToAttrs (map (m: lib.nameValuePair (lib.escapeSystemdPath m.where) (m // {
    ${attr} = {Where = m.where;} // lib.optionalAttrs (m ? what) {What = m.what; Type = m.type; Options = m.options;} // m.${attr};
  })) list);
  all = lib.concatLists (lib.mapAttrsToList (kind: k: lib.mapAttrsToList (name: u: {
    name = "${name}.${kind}";
    inherit (u) enable wantedBy requiredBy upheldBy aliases;
    dropin = isDebian "${name}.${kind}" || u.overrideStrategy == "asDropin";
    text = k.text name u;
  }) k.set) kinds);
  # Debian ships these below /usr/lib/systemd/system; settings for them are drop-ins.
  isDebian = unit: lib.hasPrefix "systemd-" unit && lib.hasSuffix ".service" unit || lib.elem unit ["dbus.service" "dbus.socket" "basic.target"
    "multi-user.target" "network.target" "network-online.target" "sysinit.target" "timers.target" "sockets.target" "local-fs.target" "shutdown.target"];

  masked = ["apt-daily.timer" "apt-daily-upgrade.timer" "console-getty.service" "dpkg-db-backup.timer" "e2scrub_all.timer" "e2scrub_reap.service"
    "getty-static.service" "getty@tty1.service" "ldconfig.service" "ssh.service" "ssh.socket" "systemd-firstboot.service"
    "systemd-journal-catalog-update.service" "systemd-hostnamed.service" "systemd-logind.service" "systemd-random-seed.service" "systemd-remount-fs.service" "systemd-resolved.service"
    "systemd-sysusers.service" "systemd-timesyncd.service" "systemd-update-done.service" "systemd-pcrphase.service" "systemd-machine-id-commit.service"];
  place = u: let
    text = lib.escapeShellArg u.text;
    file = if u.dropin then "${u.name}.d/overrides.conf" else u.name;
    link = dir: other: "mkdir -p ${lib.escapeShellArg "${other}.${dir}"}; ln -sf ${lib.escapeShellArg (if u.dropin then "/usr/lib/systemd/system/${u.name}" else "../${u.name}")} ${lib.escapeShellArg "${other}.${dir}/${u.name}"}\n";
  in
    if !u.enable then "ln -sf /dev/null ${lib.escapeShellArg u.name}\n"
    else
      lib.optionalString (u.text != "") "${lib.optionalString u.dropin "mkdir -p ${lib.escapeShellArg "${u.name}.d"}; "}printf %s ${text} >${lib.escapeShellArg file}\n"
      + lib.concatMapStrings (link "wants") u.wantedBy
      + lib.concatMapStrings (link "requires") u.requiredBy
      + lib.concatMapStrings (link "upholds") u.upheldBy
      + lib.concatMapStrings (alias: "ln -sf ${lib.escapeShellArg u.name} ${lib.escapeShellArg alias}\n") u.aliases;
in {
  options.systemd = {
    services = units service;
    sockets = units ({listenStreams = strings; listenDatagrams = strings;} // section "socketConfig");
    timers = units (section "timerConfig");
    paths = units (section "pathConfig");
    targets = units {};
    slices = units (section "sliceConfig");
    mounts = mkOption {default = []; type = types.listOf (types.submodule {options = common // section "mountConfig" // {
      what = mkOption {type = types.str;};
      where = mkOption {type = types.str;};
      type = mkOption {type = types.str; default = "";};
      options = mkOption {type = types.commas; default = "";};
    };});};
    automounts = mkOption {default = []; type = types.listOf (types.submodule {options = common // section "automountConfig" // {where = mkOption {type = types.str;};};});};
    tmpfiles = {
      rules = mkOption {type = types.listOf types.str; default = [];};
      settings = mkOption {type = types.attrsOf types.anything; default = {};};
    };
    packages = mkOption {type = types.listOf types.package; default = [];};
    user = mkOption {type = types.lazyAttrsOf types.anything; default = {};};
    sleep.settings.Sleep = mkOption {type = types.attrsOf types.anything; default = {};};
    settings.Manager = mkOption {type = types.attrsOf types.anything; default = {};};
    enableEmergencyMode = mkOption {type = types.bool; default = true;};
    coredump.enable = mkOption {type = types.bool; default = true;};
    oomd.enable = mkOption {type = types.bool; default = true;};
    defaultUnit = mkOption {type = types.str; default = "multi-user.target";};
    globalEnvironment = mkOption {type = types.attrsOf types.unspecified; default = {};};
    maskedUnits = mkOption {type = types.listOf types.str; default = masked; internal = true;};
  };

  config = {
    # services with `startAt` have a timer
    systemd.timers = lib.mapAttrs (_: s: {wantedBy = ["timers.target"]; timerConfig.OnCalendar = s.startAt;})
      (lib.filterAttrs (_: s: s.enable && s.startAt != []) cfg.services);
    assertions = map (u: {
      assertion = !lib.hasInfix "/" u.name;
      message = "systemd unit name `${u.name}' has a slash in it.";
    }) all;

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
      "tmpfiles.d/00-nixos.conf".text = lib.concatMapStrings (rule: rule + "\n") (cfg.tmpfiles.rules
        ++ lib.concatLists (lib.mapAttrsToList (_: paths: lib.concatLists (lib.mapAttrsToList (path: types: lib.mapAttrsToList (type: o:
          "${type} ${path} ${o.mode or "-"} ${o.user or "-"} ${o.group or "-"} ${o.age or "-"} ${o.argument or ""}") types) paths)) cfg.tmpfiles.settings));
    };
  };
}
