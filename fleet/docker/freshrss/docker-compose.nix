# Feeds. https://docs.linuxserver.io/images/docker-freshrss/
import ../stack.nix {
  name = "freshrss";
  description = "Feeds";

  services.freshrss = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/freshrss/docker-compose.yml
    image = "lscr.io/linuxserver/freshrss:1.29.1";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 8082;
        container = 80;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost/i/"];
  };
}
