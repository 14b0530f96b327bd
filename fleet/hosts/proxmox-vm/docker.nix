# The containers of doc1: one stack per line.
{
  imports = [
    ../../docker/actual/docker-compose.nix
    ../../docker/audiobookshelf/docker-compose.nix
    ../../docker/bazarr/docker-compose.nix
    ../../docker/calibre-web/docker-compose.nix
    ../../docker/changedetection/docker-compose.nix
    ../../docker/dozzle/docker-compose.nix
    ../../docker/forgejo/docker-compose.nix
    ../../docker/freshrss/docker-compose.nix
    ../../docker/grafana/docker-compose.nix
    ../../docker/homepage/docker-compose.nix
    ../../docker/immich/docker-compose.nix
    ../../docker/jellyfin/docker-compose.nix
    ../../docker/kavita/docker-compose.nix
    ../../docker/lidarr/docker-compose.nix
    ../../docker/mealie/docker-compose.nix
    ../../docker/navidrome/docker-compose.nix
    ../../docker/ntfy/docker-compose.nix
    ../../docker/paperless/docker-compose.nix
    ../../docker/prowlarr/docker-compose.nix
    ../../docker/qbittorrent/docker-compose.nix
    ../../docker/radarr/docker-compose.nix
    ../../docker/sabnzbd/docker-compose.nix
    ../../docker/seerr/docker-compose.nix
    ../../docker/sonarr/docker-compose.nix
    ../../docker/stirling-pdf/docker-compose.nix
    ../../docker/syncthing/docker-compose.nix
    ../../docker/tautulli/docker-compose.nix
    ../../docker/uptime-kuma/docker-compose.nix
    ../../docker/vaultwarden/docker-compose.nix
  ];

  homelab.docker = {
    # Reachable from the whole home network; a stack that must not be says so itself (dozzle).
    address = "0.0.0.0";
    sopsFile = ../../secrets/stacks.yaml;
  };

  # Shared by the stacks. A separate disk may be mounted at /srv/media.
  systemd.tmpfiles.rules =
    map (directory: "d /srv/media${directory} 0775 1000 1000 -")
    ["" "/audiobooks" "/books" "/comics" "/downloads" "/films" "/music" "/podcasts" "/series"];
}
