import logging

logger = logging.getLogger("livekit.plugins.runway_bridge")
