"""A dual-control service desk: an assistant and a user, each with tools on one shared database."""
