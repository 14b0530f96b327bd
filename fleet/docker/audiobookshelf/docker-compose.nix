# Audio books and podcasts. https://www.audiobookshelf.org/docs
import ../stack.nix {
  name = "audiobookshelf";
  description = "Audio books and podcasts";

  services.audiobookshelf = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/audiobookshelf/docker-compose.yml
    image = "ghcr.io/advplyr/audiobookshelf:2.36.0";
    ports = [
      {
        host = 13378;
        container = 80;
      }
    ];
    data.config = "/config";
    data.metadata = "/metadata";
    mounts = [
      {
        source = "/srv/media/audiobooks";
        target = "/audiobooks";
      }
      {
        source = "/srv/media/podcasts";
        target = "/podcasts";
      }
    ];
    healthCheck.command = ["wget" "-q" "--spider" "http://127.0.0.1/healthcheck"];
  };
}
