# The available packages: those below, and every word of the fleet's Nix files (`names.json`, written by lab/fleet.py
# to the lab's copy), so that `pkgs.anything` evaluates.
builtins.filter (name: name != "") (builtins.filter builtins.isString (builtins.split "[[:space:]]+" ''
  alejandra deadnix statix nvd vim neovim nano htop btop home-manager nixos-rebuild nixos-rebuild-ng ripgrep fd fzf bat eza zoxide
  starship zsh fish tmux wget curl jq yq-go sops age ssh-to-age disko tailscale docker docker-compose gh direnv nix-direnv
  nix-output-monitor python3 nodejs go rustc cargo gcc gnumake cmake qemu prometheus grafana nginx caddy postgresql
  openssl networkmanager linux linuxPackages linuxPackages_latest linuxPackages_zen linux_latest kexec-tools zfs
''))
++ (
  if builtins.pathExists ./names.json
  then builtins.fromJSON (builtins.readFile ./names.json)
  else []
)
