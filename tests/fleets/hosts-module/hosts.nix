{
  networking.hosts."192.0.2.11" = ["db.example.org"];
  services.openssh.openFirewall = true;
}
