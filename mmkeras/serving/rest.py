"""TensorFlow Serving's REST API as an ASGI application."""

import asyncio
import collections
import concurrent.futures
import functools
import hmac
import re
import time
import urllib.parse
import weakref
import zlib

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from mmkeras.serving import examples, json_text, tensors
from mmkeras.serving.errors import HTTP_STATUS, LARGEST_BODY, ServingError, echoed, invalid, unexpected
from mmkeras.serving.servable import HERE

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_ASK = re.compile(_MODEL + ":(?P<verb>[a-z]+)", re.IGNORECASE)
_LOOK = re.compile(_MODEL + "(?P<metadata>/metadata)?", re.IGNORECASE)
_API = re.compile("/v1/.*", re.IGNORECASE)
_LARGEST_VERSION, _MOST_DIGITS, _SHORT_PATH = 2**63 - 1, 19, 200
# A request this small, of a kind whose answers took this long at least once of late, is answered in the event loop:
# handing it to a thread would take longer. One that takes longer after all sends its kind back to the threads. A kind
# is a signature of a version whose time is told by the shapes of its inputs, with these shapes.
_SMALL_BODY, _QUICK_SECONDS, _SLOW_SECONDS, _OF_LATE, _MOST_KINDS = 2**14, 1e-3, 5e-3, 16, 1000


class Rest:
    """The application.

    Args:
        models: a Models.
        metrics: a Metrics.
        runner: what runs a signature, a `Servable.run` with the servable before it, such as a Batcher's.
        metrics_path: where the figures lie; None for nowhere.
        timeout: seconds after which a request is answered with an error.
        largest_body: bytes of a request, unpacked.
        cors: whether pages of any origin may ask.
        token: what `Authorization: Bearer …` has to say; None for nothing.
        pages: `{path: (content type, function to bytes)}` besides.
        threads: requests at once.
        may_wait: whether the runner lets a request wait for others, as a Batcher does: none may in the event loop.
    """

    def __init__(
        self, models, metrics, runner, metrics_path=None, timeout=30.0, largest_body=LARGEST_BODY, cors=False,
        token=None, pages=None, threads=16, may_wait=False,
    ):  # fmt: skip
        self.models, self.metrics, self.metrics_path = models, metrics, metrics_path
        self._runners = {verb: metrics.timed(runner, verb) for verb in ("predict", "classify", "regress")}
        self.timeout, self.largest_body, self.cors, self.token = timeout, largest_body, cors, token
        self.pages = pages or {}
        self.may_wait = may_wait
        self._took = weakref.WeakKeyDictionary()  # {servable: {kind: seconds of its latest answers}}
        self._uploads = set()  # tasks that wait for the rest of a request
        self.pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="rest")

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        status, body, kind = await self._answer(scope, receive)
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        if self.cors:
            headers += [(b"access-control-allow-origin", b"*"), (b"access-control-allow-methods", b"GET, POST"),
                        (b"access-control-allow-headers", b"Content-Type, Authorization")]  # fmt: skip
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope, receive):
        """(status, body, content type)."""
        method, headers = scope["method"], dict(scope["headers"])
        path = scope["raw_path"].partition(b"?")[0].decode("latin-1")
        query = scope.get("query_string", b"").decode("latin-1")
        full = f"{path}?{query}" if query else path
        try:
            if method == "OPTIONS":
                known = headers.get(b"origin", b"").startswith((b"http://", b"https://"))
                return (200 if known else 400), b"", b"application/json"
            # The page itself shows nothing: it asks for the token, and says it with all that it asks.
            if self.token is not None and path != "/" and not self._is_allowed(headers):
                raise ServingError("UNAUTHENTICATED", "Expected the header Authorization: Bearer TOKEN.")
            if method == "GET" and path == self.metrics_path:
                return 200, self.metrics.text().encode(), b"text/plain; version=0.0.4"
            if method == "GET" and path in self.pages:
                kind, page = self.pages[path]
                return 200, page(), kind
            if full == "/v1/models" and method == "GET":
                raise invalid("Missing model name in request.")
            if not _API.fullmatch(full) and full.lower() != "/v1/models":
                raise ServingError("NOT_FOUND", f"Not found: {echoed(full)}")
            return await self._api(method, full, headers, receive)
        except asyncio.CancelledError:  # by `refuse_uploads`, or what stops the server
            return 503, json_text.dumps({"error": "The server is stopping."}), b"application/json"
        except ServingError as error:
            return error.http_status, json_text.dumps({"error": error.message}), b"application/json"
        except _TooLarge as error:
            return 413, json_text.dumps({"error": str(error)}), b"application/json"
        except Exception as error:
            return 500, json_text.dumps({"error": unexpected(error).message}), b"application/json"

    def refuse_uploads(self):
        """Answers requests that have not come as a whole with an error; called in the event loop of one that stops."""
        for task in self._uploads:
            task.cancel()

    def close(self):
        """Ends its threads when their requests are answered."""
        self.pool.shutdown(wait=False)

    def _is_allowed(self, headers):
        given = headers.get(b"authorization", b"")
        return hmac.compare_digest(given, f"Bearer {self.token}".encode())

    async def _api(self, method, path, headers, receive):
        route = _route if len(path) <= _SHORT_PATH else _route.__wrapped__  # long ones would fill the memory
        verb, of_metadata, *model = route(method, path)
        if model[1] is not None and model[1] > _LARGEST_VERSION:
            return 400, b"", b"application/json"
        if verb is None:
            look = self.metadata if of_metadata else self.status
            return 200, look(*model), b"application/json"
        task = asyncio.current_task()
        self._uploads.add(task)
        try:
            body = await _body(headers, receive, self.largest_body)
        finally:
            self._uploads.discard(task)
        began, asked, name = time.monotonic(), (verb, *model), model[0]
        try:
            answer, status = await self._answered(asked, body), "OK"
        except TimeoutError:
            status, message = "DEADLINE_EXCEEDED", f"Timed out after {self.timeout:g} seconds."
        except ServingError as error:
            status, message = error.code, error.message
        except Exception as error:
            status, message = "INTERNAL", unexpected(error).message
        micros = (time.monotonic() - began) * 1e6
        self.metrics.request(name if name in self.models.names else "", verb, status, micros)
        if status == "OK":
            return 200, answer, b"application/json"
        return HTTP_STATUS[status], json_text.dumps({"error": message}), b"application/json"

    async def _answered(self, asked, body):
        """The answer to a request, from a thread or, where that is quick, from here."""
        if len(body) > _SMALL_BODY or self.may_wait:
            return await self._in_a_thread(lambda: self.ask(asked, _read(body), self.timeout * 1000))
        request, (verb, *model) = _read(body), asked
        with self.models.using(*model) as servable:
            times = self._times(servable, verb, request)
            if times is not None and len(times) == _OF_LATE and min(times) <= _QUICK_SECONDS:
                answer = self._answer_by(servable, verb, request, HERE, times)
                if times[-1] > _SLOW_SECONDS:
                    times.clear()
                return answer
        return await self._in_a_thread(lambda: self.ask(asked, request, self.timeout * 1000))

    async def _in_a_thread(self, work):
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self.pool, work), self.timeout)

    def ask(self, asked, request, timeout_ms):
        """The answer to a request, JSON bytes.

        Args:
            asked: `(verb, name, version, label)`.
            request: the parsed body.
            timeout_ms: see `Servable.run`.
        """
        verb, *model = asked
        with self.models.using(*model) as servable:
            return self._answer_by(servable, verb, request, timeout_ms, self._times(servable, verb, request))

    def _answer_by(self, servable, verb, request, timeout_ms, times):
        began, key = time.perf_counter(), request.get("signature_name") or "serving_default"
        answer = getattr(self, f"_{verb}")(servable, key, request, timeout_ms)
        if times is not None:
            times.append(time.perf_counter() - began)
        return answer

    def _times(self, servable, verb, request):
        """How long the latest answers to requests of this kind took; None where that says nothing of the next."""
        key = request.get("signature_name") or "serving_default"
        if not servable.is_steady(key):
            return None
        kinds = self._took.setdefault(servable, {})
        kind = hash((verb, key, _outline(request)))  # whatever a client names is not kept
        times = kinds.get(kind)
        if times is None:
            if len(kinds) >= _MOST_KINDS:  # somebody asks with ever other shapes
                kinds.clear()
            times = kinds[kind] = collections.deque(maxlen=_OF_LATE)
        return times

    def _predict(self, servable, key, request, timeout_ms):
        signature = servable.signature(key)
        if signature is None:
            raise invalid(f'Serving signature name: "{echoed(key)}" not found in signature def')
        feeds, rows = tensors.read_predict(request, signature.dtypes)
        outputs = self._runners["predict"](servable, key, feeds, timeout_ms=timeout_ms)
        return json_text.dumps(tensors.write_predict(outputs, rows))

    def _classify(self, servable, key, request, timeout_ms):
        given = examples.read_examples(request)
        found = examples.classify(self._runners["classify"], servable, key, given, timeout_ms)
        return json_text.dumps({"results": found})

    def _regress(self, servable, key, request, timeout_ms):
        given = examples.read_examples(request)
        found = examples.regress(self._runners["regress"], servable, key, given, timeout_ms)
        return json_text.dumps({"results": found})

    def status(self, name, version=None, label=None):
        """The states of a model's versions, JSON bytes; a label is passed over, as the original does."""
        states = [
            {
                "version": str(number), "state": one.state,
                "status": {
                    "error_code": one.error.code if one.error else "OK",
                    "error_message": one.error.message if one.error else "",
                },
            }
            for number, one in self.models.status(name, version)
        ]  # fmt: skip
        return json_text.dumps({"model_version_status": states})

    def metadata(self, name, version=None, label=None):
        """The signatures of a version, JSON bytes."""
        with self.models.using(name, version, label) as servable:
            message = get_model_metadata_pb2.SignatureDefMap()
            for key, signature in servable.meta_graph.signature_def.items():
                message.signature_def[key].CopyFrom(signature)
            spec = {"name": name, "signature_name": "", "version": str(servable.version)}
        signatures = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return json_text.dumps({"model_spec": spec, "metadata": {"signature_def": signatures}})


@functools.lru_cache(1024)
def _route(method, path):
    """`(verb, whether of the metadata, name, version, label)` of a path; without a verb it is looked at, not asked."""
    asked = _ASK.fullmatch(path) if method == "POST" else None
    found = asked or (_LOOK.fullmatch(path) if method == "GET" else None)
    if not found or (asked and asked["verb"] not in ("predict", "classify", "regress")):
        raise invalid(f"Malformed request: {method} {echoed(path)}")
    digits = (found["version"] or "").lstrip("0")[: _MOST_DIGITS + 1]  # Python reads no number of thousands of digits
    name, label = (urllib.parse.unquote(found[part] or "") for part in ("name", "label"))
    version = int(digits or 0) if found["version"] else None
    return asked and asked["verb"], not asked and bool(found["metadata"]), name, version, label


def _read(body):
    """A body parsed, an object whose `signature_name` is a text."""
    request = json_text.loads(body)
    if not isinstance(request, dict):
        raise invalid(f"JSON Value: Type: {json_text.type_name(request)} is not of expected type: Object")
    if not isinstance(request.get("signature_name", ""), str):
        raise invalid("'signature_name' key must be a string value.")
    return request


def _outline(value):
    """The shape of a value in JSON by its first elements, with the names it has in objects."""
    if isinstance(value, list):
        return len(value), _outline(value[0]) if value else None
    if isinstance(value, dict):
        return tuple([(name, _outline(value[name])) for name in sorted(value)])
    return None


class _TooLarge(Exception):
    pass


async def _body(headers, receive, largest):
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServingError("CANCELLED", "The client has gone.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > largest:
            raise _TooLarge(f"Expected a request of at most {largest:,} bytes.")
        more = message.get("more_body", False)
    body = b"".join(parts)
    if headers.get(b"content-encoding", b"").lower() != b"gzip":
        return body
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, largest + 1)
    except zlib.error:
        raise invalid("Failed to uncompress the gzipped body.") from None
    if len(plain) > largest:
        raise _TooLarge(f"Expected a request of at most {largest:,} bytes, unpacked.")
    return plain


async def _lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
