"""What the key's project holds beside its sessions: avatars, documents, voices, tasks, usage."""
