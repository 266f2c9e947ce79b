//! DNS lookups with their DNSSEC status.
