# A self-hosted runner of GitHub Actions, for one repository.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  cfg = config.homelab.services.githubRunner;
in {
  options.homelab.services.githubRunner = {
    enable = mkEnableOption "a runner of GitHub Actions. What it runs comes from the repository: a private one, or one whose workflows give it nothing of a fork";
    repoUrl = mkOption {
      type = types.nullOr (types.strMatching "https://github\\.com/[^/ ]+(/[^/ ]+)?");
      default = null;
      example = "https://github.com/example/fleet";
      description = "The repository (or organisation) that it works for.";
    };
    runnerName = mkOption {
      type = types.strMatching "[A-Za-z0-9_.-]+";
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      description = "What it is called at GitHub; its unit is github-runner-NAME.";
    };
    tokenFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = lib.literalExpression "config.sops.secrets.github_runner_token.path";
      description = ''
        A file on the machine with a fine-grained token that may register runners (one line, no line end). The runner
        registers anew for each job: a registration token, which ends after an hour, is not enough.
      '';
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.repoUrl != null;
        message = "homelab.services.githubRunner.repoUrl: say which repository it works for.";
      }
      {
        assertion = cfg.tokenFile != null;
        message = "homelab.services.githubRunner.tokenFile: it registers with a token; set it to where sops-nix puts one.";
      }
      {
        assertion = !lib.hasPrefix builtins.storeDir (toString cfg.tokenFile);
        message = "homelab.services.githubRunner.tokenFile is in the Nix store, where everybody reads it: name a file on the machine, as sops-nix makes them.";
      }
    ];
    services.github-runners = mkIf (cfg.repoUrl != null && cfg.tokenFile != null) {
      ${cfg.runnerName} = {
        enable = mkDefault true;
        name = mkDefault cfg.runnerName;
        url = mkDefault cfg.repoUrl;
        tokenFile = mkDefault cfg.tokenFile;
        # The same name registered again is this runner, not a second one.
        replace = mkDefault true;
        # No state of one job is seen by the next; its user is the unit's own, and trusted by nobody: whom the Nix daemon
        # trusts is root.
        ephemeral = mkDefault true;
        extraLabels = ["nix"];
        extraPackages = [config.nix.package pkgs.git pkgs.jq pkgs.openssh pkgs.python3];
      };
    };
    # No job of a fork's, whatever its workflows say. Among the unit's, whose variables are merged one by one.
    systemd.services = mkIf (cfg.repoUrl != null && cfg.tokenFile != null) {
      "github-runner-${cfg.runnerName}".environment.ACTIONS_RUNNER_HOOK_JOB_STARTED = mkDefault "${./refuse-forks.sh}";
    };
  };
}
