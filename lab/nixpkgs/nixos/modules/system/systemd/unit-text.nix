# The text of units.
{
  lib,
  pkgs,
}: let
  show = v:
    if v == true
    then "true"
    else if v == false
    then "false"
    else toString v;
  render = name: settings: let
    entries = lib.filterAttrs (_: v: v != null && v != []) settings;
  in
    lib.optionalString (entries != {}) ("[${name}]\n"
      + lib.concatStrings (lib.mapAttrsToList (key: v:
        lib.concatMapStrings (one: "${key}=${show one}\n") (lib.toList v))
      entries)
      + "\n");
  triggers = name: values:
    lib.optionalAttrs (values != []) {
      ${name} = builtins.hashString "sha256" (lib.concatMapStringsSep "\n" (v:
        if lib.isAttrs v && !lib.isDerivation v
        then builtins.toJSON v
        else toString v)
      values);
    };
  unitSection = u:
    {
      Description =
        if u.description == ""
        then null
        else u.description;
      Documentation = u.documentation;
      After = lib.concatStringsSep " " u.after;
      Before = lib.concatStringsSep " " u.before;
      BindsTo = u.bindsTo;
      Conflicts = u.conflicts;
      OnFailure = u.onFailure;
      OnSuccess = u.onSuccess;
      PartOf = u.partOf;
      Requires = u.requires;
      Requisite = u.requisite;
      Upholds = u.upholds;
      Wants = u.wants;
      StartLimitBurst = u.startLimitBurst;
      StartLimitIntervalSec = u.startLimitIntervalSec;
    }
    // triggers "X-Restart-Triggers" u.restartTriggers
    // triggers "X-Reload-Triggers" u.reloadTriggers
    // u.unitConfig;
  clean = lib.filterAttrs (_: v: v != "");

  command = name: kind: text: "${pkgs.writeShellScript "unit-script-${lib.strings.sanitizeDerivationName name}-${kind}" "set -e\n${text}\n"}";
  hook = name: kind: key: text: lib.optionalAttrs (text != "") {${key} = [(command name kind text)];};
  serviceText = name: s: let
    given = s.serviceConfig;
    # `script` and similar options are added to what serviceConfig sets for the same key
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
      X-RestartIfChanged =
        if s.restartIfChanged
        then null
        else false;
      X-ReloadIfChanged =
        if s.reloadIfChanged
        then true
        else null;
      X-StopIfChanged =
        if s.stopIfChanged
        then null
        else false;
    };
  in
    render "Unit" (clean (unitSection s))
    + render "Service" ({Environment = lib.mapAttrsToList (n: v: builtins.toJSON "${n}=${toString v}") (lib.filterAttrs (_: v: v != null) environment);}
      // switches
      // given
      // hooks);
  sections = names: _: u: render "Unit" (clean (unitSection u)) + lib.concatMapStrings (s: render s.name u.${s.attr}) names;
  one = name: attr: [{inherit name attr;}];
in {
  inherit one sections serviceText;
}
