//! A small internet in network namespaces (`oe-node lab`).
