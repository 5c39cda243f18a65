"""`runway-avatar serve`: Runway sessions for front ends without an agent, and for MCP clients.

Needs the extra `serve` for its MCP half. `server.run` is the whole of it; `command.serve` is the
command line.
"""
