# From a flake's outputs to the NixOS configurations of which deploy-rs has a node, each with what the node says beside:
# `shape`, the settings of its system's profile, of the node and of all nodes, in the order in which they count, and
# `verdict`, why the profile is not made of this very configuration; null where it is.
outputs: let
  deploy = outputs.deploy or {};
  settings = builtins.intersectAttrs {
    fastConnection = null;
    profilePath = null;
    remoteBuild = null;
    sshOpts = null;
    sshUser = null;
    sudo = null;
    user = null;
  };
  set = value:
    if builtins.isAttrs value
    then value
    else {};

  # The derivations that a value in a derivation's attributes refers to.
  inputs = value: let
    type = builtins.typeOf value;
  in
    if type == "string"
    then builtins.attrNames (builtins.getContext value)
    else if type == "list"
    then builtins.concatMap inputs value
    else if type != "set"
    then []
    else if value ? outPath
    then inputs "${value.outPath}"
    else builtins.concatMap inputs (builtins.attrValues value);

  verdict = system: path:
    if !(builtins.isAttrs path && path ? drvAttrs)
    then "text"
    else if builtins.elem (builtins.unsafeDiscardStringContext system.drvPath) (inputs path.drvAttrs)
    then null
    else "other";
in
  builtins.mapAttrs (name: node: let
    configuration = outputs.nixosConfigurations.${name};
    profile = set ((node.profiles or {}).system or null);
  in
    configuration
    // {
      shape.deploy-rs = {
        hostname = node.hostname or null;
        settings = [(settings profile) (settings (set node)) (settings deploy)];
      };
      verdict =
        if profile == {}
        then "none"
        else verdict configuration.config.system.build.toplevel (profile.path or null);
    })
  (builtins.intersectAttrs outputs.nixosConfigurations deploy.nodes)
