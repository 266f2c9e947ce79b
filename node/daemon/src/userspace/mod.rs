//! The userspace data plane: TUN, UDP and raw sockets, and the thread that moves packets.
