"""Connection and policy defaults of every host. No secrets: --data KEY=VALUE, host and group data override them."""

import os

# One line USER@REALM!TOKENID=UUID, mode 0600.
proxmox_token_file = os.environ.get("PROXMOX_TOKEN_FILE") or "~/.config/nixherd/proxmox-token"

# Host keys are pinned, never learnt on first use.
ssh_strict_host_key_checking = "yes"
ssh_forward_agent = False

# Seconds that a machine may take to boot.
boot_deadline = 300

# Seconds to wait for a task of the hypervisor or a lock; a clone may take an hour.
# task_deadline = 300

# Keys and secrets (docs/secrets.md): the identity that decrypts, the files' directory, rules that new hosts join.
# age_identity = "~/.config/sops/age/keys.txt"
# secrets_directory = "secrets"  # otherwise every .sops.yaml of the repository
# secrets_rules = ["^common"]
# docs_file = "docs/machines.md"
# protect = True
# commit = True

# Deploying (docs/deploying.md): seconds, the order of a rollout, the gate.
# activation_deadline = 600
# confirm_deadline = 120
# soak = 0
# max_fail = "10%"
# sign_with = "~/.config/nixherd/signing-key"
# require_signed = True
# allowed_signers = "~/.config/nixherd/allowed_signers"
# signed_from = "0123456789abcdef0123456789abcdef01234567"  # the last commit before signing began
