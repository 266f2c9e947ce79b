//! RDATA between wire form and text, driven by the table of [`crate::rtype`].

mod encoding;
mod read;
mod write;

pub(crate) use encoding::write_bitmap;
pub use read::RdataError;
pub(crate) use read::{Token, parse, parse_period, plain};
pub(crate) use write::{canonical, is_of_type, write, write_quoted};
