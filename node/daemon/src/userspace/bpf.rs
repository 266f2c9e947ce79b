//! Instructions of classic BPF (linux/bpf_common.h), by which the kernel chooses for us what a socket
//! gets.

/// `BPF_LD | BPF_W | BPF_ABS`
pub(crate) const LOAD_WORD: u16 = 0x20;
/// `BPF_JMP | BPF_JEQ | BPF_K`
pub(crate) const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_RET | BPF_K`
pub(crate) const RETURN: u16 = 0x06;
