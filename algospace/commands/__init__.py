"""What the command line runs: a module for each kind of command, imported when one of it is called."""
