# Downloads. https://docs.linuxserver.io/images/docker-qbittorrent/
import ../stack.nix {
  name = "qbittorrent";
  description = "Downloads";

  services.qbittorrent = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/qbittorrent/docker-compose.yml
    image = "lscr.io/linuxserver/qbittorrent:5.2.3";
    environment = {
      PUID = 1000;
      PGID = 1000;
      WEBUI_PORT = 8090;
      TORRENTING_PORT = 6881;
    };
    ports = [
      {
        host = 8090;
        container = 8090;
      }
      {
        host = 6881;
        container = 6881;
      }
      {
        host = 6881;
        container = 6881;
        protocol = "udp";
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
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:8090/"];
  };
  networks.media.external = true;
}
