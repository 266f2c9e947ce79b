//! The forwarding plane: hold, pass, deny, encrypt (RFC 4322 §3.1, RFC 4303), without I/O.
#![forbid(unsafe_code)]
