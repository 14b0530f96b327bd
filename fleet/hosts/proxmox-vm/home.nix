# The home of the admin on proxmox-vm.
{
  home.stateVersion = "25.11";
}
