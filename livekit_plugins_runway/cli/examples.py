"""A call that works for each command: at the end of its help, and in the errors of `--json`."""

from __future__ import annotations

EXAMPLES = {
    "auth status": "runway-avatar auth status",
    "auth set": "runway-avatar auth set --stage",
    "auth show": "runway-avatar auth show",
    "auth clear": "runway-avatar auth clear",
    "account": "runway-avatar account",
    "avatars list": "runway-avatar avatars list",
    "avatars get": "runway-avatar avatars get ID",
    "presets": "runway-avatar presets",
    "voices list": "runway-avatar --json voices list",
    "documents list": "runway-avatar documents list",
    "sessions create": "runway-avatar sessions create --preset influencer --wait",
    "sessions get": "runway-avatar sessions get ID",
    "sessions wait": "runway-avatar sessions wait ID --for ended",
    "sessions cancel": "runway-avatar sessions cancel --all-from ids.txt",
    "sessions sweep": "runway-avatar sessions sweep --json",
    "conversations list": "runway-avatar conversations list --since 2026-08-01",
    "conversations get": "runway-avatar conversations get ID",
    "conversations download": "runway-avatar conversations download ID --dir calls",
    "usage": "runway-avatar usage --since 2026-08-01",
    "request": "runway-avatar request GET /v1/organization",
    "token": "runway-avatar token --room lobby --agent face",
    "dispatch": "runway-avatar dispatch --room lobby --agent face",
    "doctor": "runway-avatar doctor --json",
    "serve": "runway-avatar serve --avatar influencer",
}
"""By the command's words."""
