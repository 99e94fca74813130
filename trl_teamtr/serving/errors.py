"""Errors in OpenAI's format."""

from typing import Any


class APIError(Exception):
    """
    An error that a client is told of.

    Args:
        status (`int`): HTTP status.
        message (`str`): What was given, what is allowed, and how to mend it.
        kind (`str`): OpenAI's `type` of the error.
        code (`str`, *optional*): Its `code`.
        param (`str`, *optional*): The field of the request that it is about.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def wrong(message: str, param: str | None = None, code: str | None = None) -> APIError:
    """A request that cannot be answered as it is."""
    return APIError(400, message, param=param, code=code)
