"""The work of each command, a module a command."""
