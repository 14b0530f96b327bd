# PDF tools. https://docs.stirlingpdf.com/Installation/Docker%20Install
import ../stack.nix {
  name = "stirling-pdf";
  description = "PDF tools";

  services.stirling-pdf = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/stirling-pdf/docker-compose.yml
    image = "stirlingtools/stirling-pdf:2.14.3";
    environment.SECURITY_ENABLELOGIN = false;
    ports = [
      {
        host = 8081;
        container = 8080;
      }
    ];
    data.tessdata = {
      target = "/usr/share/tessdata";
      backup = false;
    };
    data.configs = "/configs";
    memory = "4g";
    healthCheck.command = ["curl" "-fsS" "-o" "/dev/null" "http://localhost:8080/api/v1/info/status"];
  };
}
