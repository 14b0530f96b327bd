"""Secret files encrypted with sops for age recipients: who may read which, who can, and making the two agree."""
