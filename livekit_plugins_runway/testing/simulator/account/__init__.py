"""What an account has beside sessions: avatars, voices, documents, uploads, tasks, usage."""

from .entries import RECORDING, SimulatedAccount, avatar, document, voice

__all__ = ["RECORDING", "SimulatedAccount", "avatar", "document", "voice"]
