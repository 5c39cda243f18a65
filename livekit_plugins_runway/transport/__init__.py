"""The two ways from one Runway session to the user: bridge and direct."""
