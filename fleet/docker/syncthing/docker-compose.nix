# Files on several machines. https://github.com/syncthing/syncthing/blob/main/README-Docker.md
import ../stack.nix {
  name = "syncthing";
  description = "Files on several machines";

  services.syncthing = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/syncthing/docker-compose.yml
    image = "syncthing/syncthing:2.1.3";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 8384;
        container = 8384;
      }
      {
        host = 22000;
        container = 22000;
      }
      {
        host = 22000;
        container = 22000;
        protocol = "udp";
      }
    ];
    data.data = {
      target = "/var/syncthing";
      owner = 1000;
      group = 1000;
    };
  };
}
