# Downloads from Usenet. https://docs.linuxserver.io/images/docker-sabnzbd/
import ../stack.nix {
  name = "sabnzbd";
  description = "Downloads from Usenet";

  services.sabnzbd = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/sabnzbd/docker-compose.yml
    image = "lscr.io/linuxserver/sabnzbd:5.1.1";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 8085;
        container = 8080;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };
    mounts = [
      {
        source = "/srv/media/downloads";
        target = "/downloads";
      }
    ];
    networks = ["media"];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:8080/"];
  };
  networks.media.external = true;
}
