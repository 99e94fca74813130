"""The check that rejects a wrong setting."""


def check(ok: bool, message: str):
    """Raise `ValueError` with `message` unless `ok`."""
    if not ok:
        raise ValueError(message)
