//! RDATA between wire form and text, driven by the table of [`crate::rtype`].

mod encoding;
mod read;
mod write;

pub(crate) use encoding::write_bitmap;
pub use read::RdataError;
pub(crate) use read::{Token, parse, parse_period, plain};
#[cfg(test)]
pub(crate) use write::is_of_type;
pub(crate) use write::{canonical, write};
