{
  web.deployment = {
    targetHost = "web.example.org";
    targetUser = "root";
    tags = ["front"];
  };
}
