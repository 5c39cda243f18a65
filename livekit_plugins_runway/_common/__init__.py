"""Shared by several rooms: checks of arguments, tasks, text, versions."""
