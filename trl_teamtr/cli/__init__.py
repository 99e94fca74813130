"""The commands: what stands behind `scripts/`, which are doors to it. Each module has the functions of one command."""
