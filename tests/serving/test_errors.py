from trl_teamtr.serving.errors import APIError, wrong


def test_bodies_are_those_of_openai():
    error = wrong("`n` is 0.", "n")
    assert error.status == 400 and str(error) == "`n` is 0."
    fields = {"message": "`n` is 0.", "type": "invalid_request_error", "param": "n", "code": None}
    assert error.body == {"error": fields}
    assert APIError(504, "late", "timeout", "timeout").body["error"]["type"] == "timeout"
