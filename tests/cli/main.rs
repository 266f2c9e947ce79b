//! The commands as users run them: the built binary, real DNS servers.

mod bed;
mod keys;
mod machine;
mod verify;
