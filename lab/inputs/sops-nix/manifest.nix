# The program, and the manifests that it installs (modules/sops/manifest-for.nix; a home's lacks what it has not).
{
  lib,
  pkgs,
  cfg,
}: rec {
  package = pkgs.runCommand "sops-install-secrets-0.0.1" {} ''
    mkdir -p "$out/bin"
    cp ${./sops_install_secrets.py} "$out/bin/sops-install-secrets"
    cp ${./ssh_to_age.py} "$out/bin/ssh_to_age.py"
    chmod +x "$out/bin/sops-install-secrets"
  '';
  install = "${package}/bin/sops-install-secrets";

  manifest = suffix: secrets: templates: more: let
    missing = lib.filter (secret: !builtins.pathExists secret.sopsFile) (lib.attrValues secrets);
    problems = map (secret: "- Cannot find path '${toString secret.sopsFile}' set in sops.secrets.${builtins.toJSON secret.name}.sopsFile\n") missing;
  in
    if cfg.validateSopsFiles && problems != []
    then throw "\nFailed assertions:\n${lib.concatStringsSep "\n" problems}"
    else
      pkgs.writeText "manifest${suffix}.json" (builtins.toJSON ({
          secrets = lib.attrValues secrets;
          templates = lib.attrValues templates;
          inherit (cfg) keepGenerations;
          gnupgHome = cfg.gnupg.home;
          sshKeyPaths = cfg.gnupg.sshKeyPaths;
          ageKeyFile = cfg.age.keyFile;
          ageSshKeyPaths = map toString cfg.age.sshKeyPaths;
          placeholderBySecretName = cfg.placeholder;
          logging = lib.genAttrs ["keyImport" "secretChanges"] (name: lib.elem name cfg.log);
        }
        // more));

  # What the machine itself makes of an age key, where `sops.age.generateKey` asks for it.
  generateKey = file: ''
    if [[ ! -f ${lib.escapeShellArg file} ]]; then
      echo generating machine-specific age key...
      mkdir -p "$(dirname ${lib.escapeShellArg file})"
      age-keygen -o ${lib.escapeShellArg file}
    fi
  '';
}
