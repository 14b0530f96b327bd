# For Home Manager: secrets below ~/.config/sops-nix/secrets, decrypted by the user when the home is activated.
{
  config,
  lib,
  ...
}: let
  cfg = config.sops;
  secrets = lib.attrValues cfg.secrets;
  inherit (lib) escapeShellArg;
  secretsDir = "${config.xdg.configHome}/sops-nix/secrets";
  decrypt = secret: let
    target = "${secretsDir}.new/${secret.name}";
    extract = lib.optionalString (lib.elem secret.format ["yaml" "json"] && secret.key != "") "--extract ${escapeShellArg (lib.concatMapStrings (k: "[${builtins.toJSON k}]") (lib.splitString "/" secret.key))}";
  in ''
    mkdir -p "$(dirname ${escapeShellArg target})"
    sops decrypt --input-type ${secret.format} ${lib.optionalString (extract == "") "--output-type ${secret.format}"} ${extract} --output ${escapeShellArg target} ${secret.sopsFile} || { echo "sops: cannot decrypt ${secret.name}" >&2; exit 1; }
    chmod ${secret.mode} ${escapeShellArg target}
  '';
in {
  _known = [(lib.knownOptions "sops-nix-home")];
  options.sops = import ./options.nix {inherit lib config secretsDir;};
  config = lib.mkIf (secrets != []) {
    assertions = [
      {
        assertion = cfg.age.keyFile != null || cfg.age.sshKeyPaths != [] || cfg.gnupg.home != null;
        message = "No key source configured for sops. Either set sops.age.keyFile, sops.age.sshKeyPaths or sops.gnupg.home";
      }
    ];
    home.activation.sops-nix = {
      after = ["writeBoundary"];
      data = ''
        (
          umask 077
          rm -rf ${escapeShellArg secretsDir}.new; mkdir -p ${escapeShellArg secretsDir}.new
          ${lib.optionalString (cfg.age.keyFile != null) "export SOPS_AGE_KEY_FILE=${escapeShellArg cfg.age.keyFile}"}
          ${lib.optionalString (cfg.age.sshKeyPaths != []) ''
          # Recipients are converted keys; sops itself does not accept SSH keys for those.
          export SOPS_AGE_KEY_FILE=${escapeShellArg secretsDir}.new/.identity
          trap 'rm -f "$SOPS_AGE_KEY_FILE"' EXIT
          python3 ${./ssh_to_age.py} ${escapeShellArg (toString (lib.head cfg.age.sshKeyPaths))} >"$SOPS_AGE_KEY_FILE"
        ''}
          set -eu
          ${lib.concatMapStrings decrypt secrets}
          rm -f ${escapeShellArg secretsDir}.new/.identity
          rm -rf ${escapeShellArg secretsDir}; mv ${escapeShellArg secretsDir}.new ${escapeShellArg secretsDir}
        )
      '';
    };
  };
}
