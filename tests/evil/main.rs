//! A peer that speaks correct cryptography and wrong protocol.
