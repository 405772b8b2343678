"""What a server answers when it cannot: a code of gRPC, its name in HTTP, and a text."""

import logging

# The codes of gRPC by name, and the HTTP status of each (TensorFlow Serving, util/net_http and http_server.cc).
HTTP_STATUS = {
    "OK": 200, "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429, "FAILED_PRECONDITION": 400,
    "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501, "INTERNAL": 500, "UNAVAILABLE": 503, "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}  # fmt: skip
LARGEST_BODY = 2**26  # bytes of a request, unpacked
MOST_ECHOED = 256  # bytes of a request that an error's text repeats


class ServingError(Exception):
    """An answer that is an error.

    Args:
        code: a name of `HTTP_STATUS`.
        message: its text.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """The HTTP status of its code."""
        return HTTP_STATUS[self.code]


def invalid(message):
    """The error of a request that cannot be understood."""
    return ServingError("INVALID_ARGUMENT", message)


def echoed(text, most=MOST_ECHOED):
    """A piece of a request as an error may repeat it: at most so many bytes of it."""
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= most else encoded[:most].decode("utf-8", "ignore") + "...TRUNCATED"


def unexpected(error):
    """The error of a fault that is ours; what it was is logged, since the text may hold what was asked."""
    logging.getLogger("mmkeras.serving").error("A request failed.", exc_info=error)
    return ServingError("INTERNAL", f"The server failed: {type(error).__name__}. Its log says where.")
