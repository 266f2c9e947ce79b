//! Any interleaving of inputs.
