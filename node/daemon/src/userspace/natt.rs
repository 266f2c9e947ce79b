//! What shares a port with ESP (RFC 3948 §2).

/// What a datagram there is. An SPI is never zero, so four octets of it tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Natt<'a> {
    /// The IKE message behind the non-ESP marker (§2.2).
    Ike(&'a [u8]),
    /// ESP (§2.1).
    Esp,
    /// A NAT keepalive (§2.3), or nothing: too short for an SPI.
    Keepalive,
}

impl<'a> Natt<'a> {
    /// What these octets are.
    pub(crate) fn of(datagram: &'a [u8]) -> Self {
        match datagram.split_first_chunk() {
            Some((&MARKER, message)) => Self::Ike(message),
            Some(_) => Self::Esp,
            None => Self::Keepalive,
        }
    }
}

/// An IKE message as it goes there.
pub(crate) fn marked(message: &[u8]) -> Vec<u8> {
    [&MARKER[..], message].concat()
}

/// The non-ESP marker.
const MARKER: [u8; 4] = [0; 4];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_octets_tell() {
        assert_eq!(Natt::of(&marked(b"message")), Natt::Ike(b"message"));
        assert_eq!(Natt::of(&[0; 4]), Natt::Ike(&[]));
        for spi in [[0, 0, 0, 1], [1, 0, 0, 0], [0xff; 4]] {
            assert_eq!(Natt::of(&spi), Natt::Esp);
        }
        for short in [&[][..], &[0xff], &[0; 3]] {
            assert_eq!(Natt::of(short), Natt::Keepalive);
        }
    }
}
