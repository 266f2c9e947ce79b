//! The advisories of docs/THREATS.md, one by one, against the whole machine.
