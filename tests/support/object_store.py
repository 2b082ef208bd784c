# Starts moto, an independent S3 server, with an empty bucket. Prints the port. Ends when standard input is closed.
#   python object_store.py s3|google
# With `google`, it uses the names that Google's XML API has for two headers. That API is compatible with clients of
# S3, and the other parts that are used, multipart uploads and lists, are the same in both.
# Paths below /-/ are for the test: it sets the faults of later requests, and reads the log of past requests.
import json
import re
import socket
import sys
import threading
from urllib.parse import unquote

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

kind = sys.argv[1]
moto = DomainDispatcherApplication(create_backend_app)
lock, conditional = threading.Lock(), threading.Lock()
faults, log = [], []
never = threading.Event()
# moto does not check signatures, but treats requests without a signature as anonymous.
SIGNED = "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def take(line):
    """Returns the next fault for a request, if any."""
    with lock:
        for fault in faults:
            if fault["count"] and re.search(fault["match"], line):
                if fault["skip"]:
                    fault["skip"] -= 1
                    return None
                fault["count"] -= 1
                return fault
    return None


def orders(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    with lock:
        if environ["PATH_INFO"] == "/-/faults":
            faults[:] = json.loads(body)
            answer = b"[]"
        else:
            answer = json.dumps(log).encode()
            log.clear()
    start_response("200 OK", [("content-length", str(len(answer)))])
    return [answer]


def hang_up(environ):
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("as ordered")


def cut(body, stays):
    yield body[: len(body) // 2]
    if stays:
        never.wait()
    raise ConnectionAbortedError("as ordered")


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/-/"):
        return orders(environ, start_response)
    line = environ["REQUEST_METHOD"] + " " + environ["PATH_INFO"] + "?" + unquote(environ["QUERY_STRING"])
    with lock:
        log.append([line, environ.get("HTTP_RANGE", ""), environ.get("HTTP_AUTHORIZATION", "")])
    fault = take(line)
    what = fault and fault["kind"]
    if what == "hang":
        never.wait()
    if what == "hang-up":
        hang_up(environ)
    if what == "status":
        body = f"<Error><Code>{fault['code']}</Code><Message>key AKIDTEST</Message></Error>".encode()
        start_response(fault["status"] + " As Ordered", [("content-length", str(len(body)))])
        return [body]
    if not environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4"):
        environ["HTTP_AUTHORIZATION"] = SIGNED
    if kind == "google":
        if environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH") == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"

    def start(status, headers, *more):
        if kind == "google":
            headers = [*headers, ("x-goog-generation", "1")]
        return start_response(status, headers, *more)

    if what is None and "HTTP_IF_NONE_MATCH" in environ:
        # moto checks and writes in two steps; the real services do both atomically.
        with conditional:
            return [b"".join(moto(environ, start))]
    if what is None:
        return moto(environ, start)
    if what == "lost":
        b"".join(moto(environ, lambda *_: None))
        hang_up(environ)
    # The kind is `cut` or `stall`.
    return cut(b"".join(moto(environ, start)), what == "stall")


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
import urllib.request  # noqa: E402

request = urllib.request.Request(f"http://127.0.0.1:{server.port}/entries", method="PUT")
urllib.request.urlopen(request).read()
log.clear()
print(server.port, flush=True)
sys.stderr.close()
sys.stdin.read()
import os  # noqa: E402

os._exit(0)
