"""Listens in the place of a store's daemon, and then becomes another program.

    impostor.py ORDER

ORDER is JSON: `socket`, and the `program`, `arguments` and `environment` to become. The kernel recorded this
process as the listener, and keeps saying so. A child has the socket too: it answers clients as a daemon would,
and holds the other end of the program's standard input, so that the program waits there.
"""

import json
import os
import socket
import struct
import sys
import threading

SERVER_MAGIC = 0x6478696F
VERSION = 0x115
LAST = 0x616C7473
IS_VALID_PATH, ADD_TEMP_ROOT, QUERY_VALID_PATHS = 1, 11, 31


def serve(connection):
    def word():
        data = connection.recv(8, socket.MSG_WAITALL)
        if len(data) < 8:
            raise EOFError
        return struct.unpack("<Q", data)[0]

    def text():
        length = word()
        return connection.recv((length + 7) // 8 * 8, socket.MSG_WAITALL)[:length]

    def send(*words):
        connection.sendall(struct.pack(f"<{len(words)}Q", *words))

    try:
        word()
        send(SERVER_MAGIC, VERSION)
        for _ in range(3):
            word()
        send(LAST)
        while True:
            operation = word()
            if operation in (IS_VALID_PATH, ADD_TEMP_ROOT):
                text()
                send(LAST, 1)
            elif operation == QUERY_VALID_PATHS:
                paths = [text() for _ in range(word())]
                send(LAST, len(paths))
                for path in paths:
                    send(len(path))
                    connection.sendall(path.ljust((len(path) + 7) // 8 * 8, b"\0"))
            else:
                return
    except (EOFError, OSError):
        pass
    finally:
        connection.close()


def main():
    order = json.loads(sys.argv[1])
    if os.path.lexists(order["socket"]):
        os.unlink(order["socket"])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(order["socket"])
    os.chmod(order["socket"], 0o666)
    listener.listen(4096)
    for_program, kept = os.pipe()
    if os.fork() == 0:
        os.close(for_program)
        while True:
            threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
    os.close(kept)
    os.dup2(for_program, 0)
    print("listening", flush=True)
    os.execve(order["program"], order["arguments"], order["environment"])


main()
