# Pages that change. https://github.com/dgtlmoon/changedetection.io#docker
import ../stack.nix {
  name = "changedetection";
  description = "Pages that change";

  services.changedetection = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/changedetection/docker-compose.yml
    image = "ghcr.io/dgtlmoon/changedetection.io:0.55.8";
    ports = [
      {
        host = 5002;
        container = 5000;
      }
    ];
    data.datastore = "/datastore";
    # The image has Python but no curl.
    healthCheck.command = ["python3" "-c" "import urllib.request; urllib.request.urlopen('http://localhost:5000/', timeout=5)"];
  };
}
