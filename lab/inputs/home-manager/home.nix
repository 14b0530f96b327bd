# The options of a home, and the package that activates it.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  cfg = config.home;
  switch = {
    enable = mkOption {
      type = types.bool;
      default = false;
    };
  };
  set = mkOption {
    type = types.attrsOf types.anything;
    default = {};
  };
  file = base:
    types.attrsOf (types.submodule ({
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
          apply = target: base + lib.removePrefix "${cfg.homeDirectory}/" target;
        };
        text = mkOption {
          type = types.nullOr types.lines;
          default = null;
        };
        source = mkOption {
          type = types.path;
          default = pkgs.writeText "hm_${lib.strings.sanitizeDerivationName (baseNameOf name)}" config.text;
        };
        executable = mkOption {
          type = types.nullOr types.bool;
          default = null;
        };
        recursive = mkOption {
          type = types.bool;
          default = false;
        };
        force = mkOption {
          type = types.bool;
          default = false;
        };
        onChange = mkOption {
          type = types.lines;
          default = "";
        };
      };
    }));
  files = lib.filter (f: f.enable) (lib.attrValues cfg.file);

  # Entries come after those that they name; everything after writeBoundary may write.
  order = entries: let
    names = lib.attrNames entries;
    before = name: entries.${name}.after ++ lib.filter (other: lib.elem name entries.${other}.before) names;
    visit = state: name:
      if lib.elem name state || !(entries ? ${name})
      then state
      else lib.foldl' visit state (before name) ++ [name];
  in
    lib.foldl' visit [] names;
  value = v:
    if lib.isBool v
    then
      (
        if v
        then "1"
        else ""
      )
    else toString v;
in {
  imports = [
    ./modules/look.nix
    ./modules/programs.nix
    ./modules/session.nix
    ./modules/shells.nix
    ./modules/ssh.nix
    ./modules/units.nix
  ];

  options = {
    home = {
      username = mkOption {type = types.str;};
      homeDirectory = mkOption {
        type = types.path;
        apply = toString;
      };
      stateVersion = mkOption {type = types.str;};
      packages = mkOption {
        type = types.listOf types.package;
        default = [];
      };
      sessionVariables = mkOption {
        type = types.lazyAttrsOf (types.oneOf [types.str types.path types.int types.float types.bool]);
        default = {};
      };
      # etc/profile.d/hm-session-vars.sh, part of the profile
      sessionVariablesPackage = mkOption {
        type = types.package;
        internal = true;
      };
      sessionPath = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      shellAliases = mkOption {
        type = types.attrsOf types.str;
        default = {};
      };
      file = mkOption {
        type = file "";
        default = {};
      };
      activation = mkOption {
        default = {};
        type = types.attrsOf (types.coercedTo types.str (data: {inherit data;}) (types.submodule {
          options = {
            data = mkOption {type = types.str;};
            after = mkOption {
              type = types.listOf types.str;
              default = ["writeBoundary"];
            };
            before = mkOption {
              type = types.listOf types.str;
              default = [];
            };
          };
        }));
      };
      activationPackage = mkOption {
        type = types.package;
        internal = true;
      };
      path = mkOption {
        type = types.package;
        internal = true;
      };
      profileDirectory = mkOption {
        type = types.str;
        default = "${cfg.homeDirectory}/.nix-profile";
      };
      extraOutputsToInstall = mkOption {
        type = types.listOf types.str;
        default = [];
      };
      enableNixpkgsReleaseCheck = mkOption {
        type = types.bool;
        default = true;
      };
      keyboard = mkOption {
        type = types.nullOr types.anything;
        default = null;
      };
      language = set;
    };
    xdg = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      configHome = mkOption {
        type = types.str;
        default = "${cfg.homeDirectory}/.config";
      };
      dataHome = mkOption {
        type = types.str;
        default = "${cfg.homeDirectory}/.local/share";
      };
      stateHome = mkOption {
        type = types.str;
        default = "${cfg.homeDirectory}/.local/state";
      };
      cacheHome = mkOption {
        type = types.str;
        default = "${cfg.homeDirectory}/.cache";
      };
      configFile = mkOption {
        type = file ".config/";
        default = {};
      };
      dataFile = mkOption {
        type = file ".local/share/";
        default = {};
      };
    };
    programs = {
      home-manager = switch;
      git =
        switch
        // {
          settings = set;
          extraConfig = set;
        };
      zsh = switch;
      fish = switch;
      direnv = switch;
      fzf = switch;
      tmux = switch;
      neovim = switch;
      vim = switch;
    };
    services = {
      ssh-agent = switch;
      gpg-agent = switch;
    };
    assertions = mkOption {
      type = types.listOf types.unspecified;
      default = [];
    };
    warnings = mkOption {
      type = types.listOf types.str;
      default = [];
    };
    nix.settings = set;
    nixpkgs = {
      config = set;
      overlays = mkOption {
        type = types.listOf types.raw;
        default = [];
      };
    };
  };

  _known = [(lib.knownOptions "home-manager")];
  config = {
    home.file = lib.mkMerge [
      (lib.mapAttrs' (_: f:
        lib.nameValuePair f.target {
          inherit (f) enable source executable onChange recursive force;
          target = f.target;
        }) (config.xdg.configFile // config.xdg.dataFile))
      (lib.mkIf (config.programs.git.enable && config.programs.git.settings != {}) {
        ".config/git/config".text = lib.generators.toINI {} (lib.filterAttrs (_: lib.isAttrs) config.programs.git.settings);
      })
    ];
    home.sessionVariablesPackage = pkgs.writeTextDir "etc/profile.d/hm-session-vars.sh" (
      lib.concatStrings (lib.mapAttrsToList (n: v: "export ${n}=${lib.escapeShellArg (value v)}\n") cfg.sessionVariables)
      + lib.concatMapStrings (p: "export PATH=\"$PATH:${p}\"\n") cfg.sessionPath
    );
    # All except for Debian's own programs, which are on PATH anyway.
    home.path = pkgs.buildEnv {
      name = "home-manager-path";
      paths = lib.unique (map (p: "${p}") (lib.filter (p: !lib.hasSuffix "-debian-usr" "${p}") cfg.packages ++ [cfg.sessionVariablesPackage]));
    };
    home.activation = {
      writeBoundary = {
        data = "";
        after = [];
      };
      checkLinkTargets = {
        before = ["writeBoundary"];
        after = [];
        data = "bash ${./check-link-targets.sh} \"$newGenPath\" ${lib.escapeShellArgs (map (f: f.target) (lib.filter (f: f.force) files))}";
      };
      linkGeneration = {
        after = ["writeBoundary"];
        data = "bash ${./link-generation.sh} \"$newGenPath\" \"\${oldGenPath:-}\"";
      };
    };

    home.activationPackage = let
      failed = lib.filter (a: !a.assertion) config.assertions;
      entries = cfg.activation;
    in
      if failed != []
      then throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (a: "- ${a.message}") failed}"
      else
        lib.showWarnings config.warnings (pkgs.runCommand "home-manager-generation" {
            activateScript = ''
              #!/usr/bin/env bash
              # Lays this generation into the home of ${cfg.username}.
              set -eu
              newGenPath=@out@
              if [[ $HOME != ${lib.escapeShellArg cfg.homeDirectory} ]]; then
                echo "Error: HOME is set to \"$HOME\" but we expect \"${cfg.homeDirectory}\"" >&2
                exit 1
              fi
              if [[ $(id -un) != ${lib.escapeShellArg cfg.username} ]]; then
                echo "Error: USER is set to \"$(id -un)\" but we expect \"${cfg.username}\"" >&2
                exit 1
              fi
              profiles=''${XDG_STATE_HOME:-$HOME/.local/state}/nix/profiles
              mkdir -p "$profiles"
              oldGenPath=
              if [[ -e $profiles/home-manager ]]; then oldGenPath=$(readlink -f "$profiles/home-manager"); fi
              ${lib.concatMapStrings (name: ''
                echo "Activating ${name}"
                ${entries.${name}.data}
              '') (order entries)}
              if [[ $oldGenPath != "$newGenPath" ]]; then nix-env --profile "$profiles/home-manager" --set "$newGenPath"; fi
            '';
          } ''
            mkdir -p "$out/home-files"
            ${lib.concatMapStrings (f: let
                target = lib.escapeShellArg f.target;
              in ''
                mkdir -p "$out/home-files/$(dirname ${target})"; ln -s ${lib.escapeShellArg "${f.source}"} "$out/home-files/"${target}
              '')
              files}
            ln -s ${cfg.path} "$out/home-path"
            printf '%s%s%s\n' "''${activateScript%%@out@*}" "$out" "''${activateScript#*@out@}" >"$out/activate"
            chmod +x "$out/activate"
            echo 1 >"$out/gen-version"
          '');
  };
}
