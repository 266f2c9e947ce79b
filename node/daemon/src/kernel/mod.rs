//! The kernel: routes, rules, addresses, and the XFRM policies that enforce inbound protection.
