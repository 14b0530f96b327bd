# Music. https://www.navidrome.org/docs/installation/docker/
import ../stack.nix {
  name = "navidrome";
  description = "Music";

  services.navidrome = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/navidrome/docker-compose.yml
    image = "deluan/navidrome:0.63.2";
    ports = [
      {
        host = 4533;
        container = 4533;
      }
    ];
    user = "1000:1000";
    data.data = {
      target = "/data";
      owner = 1000;
      group = 1000;
    };
    mounts = [
      {
        source = "/srv/media/music";
        target = "/music";
        readOnly = true;
      }
    ];
    healthCheck.command = ["wget" "-q" "--spider" "http://127.0.0.1:4533/ping"];
  };
}
