# environment.etc: a tree in the store with a list of targets; activation creates links to it in /etc.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  entries = lib.filter (e: e.enable) (lib.attrValues config.environment.etc);
  parent = path: let
    dir = dirOf path;
  in
    if dir == "."
    then ""
    else "/${dir}";
  directories = lib.unique (map (e: parent e.target) entries);
  variable = n: "text${toString n}";
  long = e: e.text != null && lib.stringLength e.text > 100000;
  numbered = lib.imap0 (n: e: e // {inherit n;}) entries;
  inlined = lib.filter (e: e.inline) numbered;
in {
  options.environment.etc = mkOption {
    default = {};
    description = "Files below /etc. Texts are part of the tree's own derivation: one build for all.";
    type = types.attrsOf (types.submodule ({
      name,
      config,
      ...
    }: {
      options = {
        enable = mkOption {
          type = types.bool;
          default = true;
        };
        target = mkOption {
          type = types.str;
          default = name;
          apply = lib.removePrefix "/";
        };
        text = mkOption {
          type = types.nullOr types.lines;
          default = null;
        };
        source = mkOption {
          type = types.path;
          default = pkgs.writeText "etc-${baseNameOf name}" config.text;
        };
        mode = mkOption {
          type = types.str;
          default = "symlink";
          description = "`symlink`, or the mode of a copy.";
        };
        user = mkOption {
          type = types.str;
          default = "root";
        };
        group = mkOption {
          type = types.str;
          default = "root";
        };
        uid = mkOption {
          type = types.nullOr types.int;
          default = null;
        };
        gid = mkOption {
          type = types.nullOr types.int;
          default = null;
        };
        # set by us: the text is written here instead of linked
        inline = mkOption {
          type = types.bool;
          internal = true;
          default = config.text != null;
        };
      };
    }));
  };

  config = {
    system.build.etc =
      pkgs.runCommand "etc" (
        lib.listToAttrs (map (e: lib.nameValuePair (variable e.n) e.text) inlined)
        // {
          passAsFile = map (e: variable e.n) (lib.filter long inlined);
          manifest =
            lib.concatMapStrings (e: "${e.mode} ${
              if e.uid != null
              then toString e.uid
              else e.user
            }:${
              if e.gid != null
              then toString e.gid
              else e.group
            } ${e.target}\n")
            entries;
        }
      ) ''
        mkdir -p ${lib.concatMapStringsSep " " (dir: "\"$out/etc\"${lib.escapeShellArg dir}") ([""] ++ directories)}
        printf %s "$manifest" >"$out/manifest"
        cd "$out/etc"
        ${lib.concatMapStrings (e: let
          target = lib.escapeShellArg e.target;
        in
          if e.inline && long e
          then "cat \"\$${variable e.n}Path\" >${target}\n"
          else if e.inline
          then "printf %s \"\$${variable e.n}\" >${target}\n"
          else "ln -s ${lib.escapeShellArg "${e.source}"} ${target}\n")
        numbered}
      '';

    system.activationScripts.etc = {
      deps = ["users"];
      text = "bash ${../../scripts/setup-etc.sh} ${config.system.build.etc}";
    };
  };
}
