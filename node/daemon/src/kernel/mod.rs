//! The kernel: routes, rules, addresses, and the XFRM policies that enforce inbound protection.

#[cfg(test)]
pub(crate) mod namespace;
