"""A team as an OpenAI-compatible server, with a page to watch it talk. Needs the extra `serve`."""
