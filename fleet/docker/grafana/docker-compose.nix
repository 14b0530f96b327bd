# Graphs. https://grafana.com/docs/grafana/latest/setup-grafana/installation/docker/
import ../stack.nix {
  name = "grafana";
  description = "Graphs";

  services.grafana = {
    # https://github.com/runtipi/runtipi-appstore/blob/9ae305b6028e5fa295ab9d539586aa8097a3c847/apps/grafana/docker-compose.yml
    image = "grafana/grafana-oss:13.0.2";
    environment.GF_ANALYTICS_REPORTING_ENABLED = false;
    # GF_SECURITY_ADMIN_PASSWORD=…
    secrets = ["grafana"];
    ports = [
      {
        host = 3001;
        container = 3000;
      }
    ];
    # The image runs as 472.
    data.data = {
      target = "/var/lib/grafana";
      owner = 472;
      group = 472;
    };
    healthCheck.command = ["wget" "-q" "--spider" "http://127.0.0.1:3000/api/health"];
  };
  secrets.grafana = {};
}
