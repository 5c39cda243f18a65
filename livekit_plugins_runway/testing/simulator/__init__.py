"""The simulated Runway: REST, sessions, account."""
