"""Listens as systemd does: notify_socket.py PATH prints each datagram on one line, its lines joined by a blank."""
import array, os, socket, sys

listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(sys.argv[1])
print("listening", flush=True)
while True:
    data, ancillary, _, _ = listener.recvmsg(4096, socket.CMSG_SPACE(16))
    print(data.decode().strip().replace("\n", " "), flush=True)
    # The sender waits until the descriptor that comes with BARRIER=1 is closed.
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors = array.array("i")
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            for descriptor in descriptors:
                os.close(descriptor)
