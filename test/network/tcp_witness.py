"""tcp_witness.py serve ADDRESS PORT WORD: answer every connection with WORD and the address it came from.
tcp_witness.py ask ADDRESS PORT: connect, print the answer; "refused" or "silence" when there is none.
"""

import socket
import sys

verb, address, port, *words = sys.argv[1:]
if verb == "serve":
    with socket.create_server((address, int(port)), backlog=16) as server:
        print("ready", flush=True)
        while True:
            connection, peer = server.accept()
            with connection:
                connection.sendall(f"{words[0]} {peer[0]}".encode())
else:
    try:
        with socket.create_connection((address, int(port)), timeout=1) as connection:
            print(connection.recv(100).decode(), end="")
    except ConnectionRefusedError:
        print("refused", end="")
    except OSError:
        print("silence", end="")
