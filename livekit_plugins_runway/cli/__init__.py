"""The command line `runway-avatar`; see docs/cli.md. Nothing else of the package imports it."""
