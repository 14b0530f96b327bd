# Films and series. https://docs.linuxserver.io/images/docker-jellyfin/
import ../stack.nix {
  name = "jellyfin";
  description = "Films and series";

  services.jellyfin = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/jellyfin/docker-compose.yml
    image = "lscr.io/linuxserver/jellyfin:10.11.11";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 8096;
        container = 8096;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };
    data.cache = {
      target = "/cache";
      owner = 1000;
      group = 1000;
      backup = false;
    };
    mounts = [
      {
        source = "/srv/media";
        target = "/media";
        readOnly = true;
      }
    ];
    networks = ["media"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:8096/health"];
  };
  networks.media.external = true;
}
