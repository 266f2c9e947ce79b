//! Octets that nobody may see.

use std::fmt;
use std::ops::Deref;

use zeroize::Zeroizing;

/// Octets that are wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub(crate) fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// So many zeros, to be filled.
    pub(crate) fn zeros(len: usize) -> Self {
        Self::new(vec![0; len])
    }

    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
