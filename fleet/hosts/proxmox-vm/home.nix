# The home of the admin on proxmox-vm.
{
  imports = [../common/home.nix ../common/shell.nix];

  home.stateVersion = "25.11";
}
