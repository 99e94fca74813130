"""The one way in which a wrong setting is refused."""


def check(ok: bool, message: str):
    """Raise `ValueError` with `message` unless `ok`."""
    if not ok:
        raise ValueError(message)
