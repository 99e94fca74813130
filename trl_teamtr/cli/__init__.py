"""The commands behind `scripts/`. Each module has the functions of one command."""
