{nixpkgs = throw "npins fetches it";}
