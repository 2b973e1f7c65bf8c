"""What each command does, one file a command, named like the command."""
