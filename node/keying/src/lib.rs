//! Policy groups, peers, DNS answers and their composition with IKE (RFC 4322 §3.2 to §3.4).
#![forbid(unsafe_code)]
