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
    enable = mkEnableOption "a runner of GitHub Actions. It runs code from the repository: use a private one, or workflows that give it nothing from forks";
    repoUrl = mkOption {
      type = types.nullOr (types.strMatching "https://github\\.com/[^/ ]+(/[^/ ]+)?");
      default = null;
      example = "https://github.com/example/fleet";
      description = "The repository (or organisation) that it serves.";
    };
    runnerName = mkOption {
      type = types.strMatching "[A-Za-z0-9_.-]+";
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      description = "The runner's name at GitHub; its unit is github-runner-NAME.";
    };
    tokenFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = lib.literalExpression "config.sops.secrets.github_runner_token.path";
      description = ''
        A file on the machine with a fine-grained token that may register runners (one line, no newline). The runner
        registers again for each job, so a registration token, which expires after an hour, is not enough.
      '';
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.repoUrl != null;
        message = "homelab.services.githubRunner.repoUrl: set it to the repository that the runner serves.";
      }
      {
        assertion = cfg.tokenFile != null;
        message = "homelab.services.githubRunner.tokenFile: the runner needs a token to register; set it to the token's path, for example from sops-nix.";
      }
      {
        assertion = !lib.hasPrefix builtins.storeDir (toString cfg.tokenFile);
        message = "homelab.services.githubRunner.tokenFile is in the Nix store, which every user can read: name a file on the machine, for example from sops-nix.";
      }
    ];
    services.github-runners = mkIf (cfg.repoUrl != null && cfg.tokenFile != null) {
      ${cfg.runnerName} = {
        enable = mkDefault true;
        name = mkDefault cfg.runnerName;
        url = mkDefault cfg.repoUrl;
        tokenFile = mkDefault cfg.tokenFile;
        # Registering the same name again replaces this runner.
        replace = mkDefault true;
        # A job cannot see the state of another; the unit has its own user, whom nothing trusts: the Nix daemon trusts only
        # root.
        ephemeral = mkDefault true;
        extraLabels = ["nix"];
        extraPackages = [config.nix.package pkgs.git pkgs.jq pkgs.openssh pkgs.python3];
      };
    };
    # Refuse jobs from forks, whatever the workflows say. Set on the unit, where variables are merged one by one.
    systemd.services = mkIf (cfg.repoUrl != null && cfg.tokenFile != null) {
      "github-runner-${cfg.runnerName}".environment.ACTIONS_RUNNER_HOOK_JOB_STARTED = mkDefault "${./refuse-forks.sh}";
    };
  };
}
