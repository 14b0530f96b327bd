# Comics and books. https://wiki.kavitareader.com/installation/docker/dockerhub/
import ../stack.nix {
  name = "kavita";
  description = "Comics and books";

  services.kavita = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/kavita/docker-compose.yml
    image = "jvmilazz0/kavita:0.9.0";
    ports = [
      {
        host = 5001;
        container = 5000;
      }
    ];
    data.config = "/kavita/config";
    mounts = [
      {
        source = "/srv/media/comics";
        target = "/comics";
        readOnly = true;
      }
    ];
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:5000/api/health"];
  };
}
