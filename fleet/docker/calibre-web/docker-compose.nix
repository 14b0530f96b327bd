# Books. https://docs.linuxserver.io/images/docker-calibre-web/
import ../stack.nix {
  name = "calibre-web";
  description = "Books";

  services.calibre-web = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/calibre-web/docker-compose.yml
    image = "lscr.io/linuxserver/calibre-web:0.6.27";
    environment = {
      PUID = 1000;
      PGID = 1000;
    };
    ports = [
      {
        host = 8083;
        container = 8083;
      }
    ];
    data.config = {
      target = "/config";
      owner = 1000;
      group = 1000;
    };
    mounts = [
      {
        source = "/srv/media/books";
        target = "/books";
      }
    ];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:8083/login"];
  };
}
