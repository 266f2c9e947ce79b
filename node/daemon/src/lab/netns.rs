//! Namespaces: an own corner of the machine, made without touching the rest of it.
//!
//! Everything here is anonymous: namespaces live as long as the threads in them, the files lie on
//! a memory file system that only this process sees, children die with their parent. So nothing
//! can be left behind, not even by SIGKILL.
#![allow(unsafe_code)] // unshare, mount, prctl and two socket options have no safe interface in std.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

/// On what right the namespaces are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Footing {
    /// With the capabilities the process came with.
    Root,
    /// With those that an own user namespace gives.
    UserNamespace,
}

/// Why no namespaces can be made here, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{missing}\n{remedy}")]
pub(crate) struct Refusal {
    /// The missing permission.
    pub(crate) missing: String,
    /// How to get it.
    pub(crate) remedy: String,
}

/// Where the lab's files lie: seen by this process and its children only.
pub(crate) const SCRATCH: &str = "/dev/shm";

/// Moves this process into mount and network namespaces of its own, inside a user namespace of
/// its own if it has to be. Must run before the process starts its first thread.
pub(crate) fn enter() -> Result<Footing, Refusal> {
    let footing = if privileged() && unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET).is_ok() {
        Footing::Root
    } else {
        enter_user_namespace()?;
        Footing::UserNamespace
    };
    own_mounts().map_err(|error| Refusal {
        missing: format!("cannot mount a private file system on {SCRATCH}: {error}"),
        remedy: CONTAINER_REMEDY.to_owned(),
    })?;
    Ok(footing)
}

/// Whether a TUN device can be made in this process's network namespace.
pub(crate) fn check_tun() -> Result<(), Refusal> {
    let device = Path::new("/dev/net/tun");
    match File::options().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal {
            missing: format!("cannot open {}: {error}", device.display()),
            remedy: match error.kind() {
                io::ErrorKind::NotFound => {
                    "Load the driver with `sudo modprobe tun`; in a container, start it with \
                     `--device /dev/net/tun`."
                }
                _ => "Allow it with `sudo chmod 0666 /dev/net/tun`, or run the lab as root.",
            }
            .to_owned(),
        }),
    }
}

/// Moves the calling thread, and all it will start, into a new network namespace.
pub(crate) fn own_network() -> io::Result<OwnedFd> {
    unshare(libc::CLONE_NEWNET)?;
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// The calling thread's id, which names its namespaces under `/proc`.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: gettid takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// Sets `net.<key>` in the calling thread's network namespace.
pub(crate) fn sysctl(key: &str, value: &str) -> io::Result<()> {
    let path: PathBuf = ["/proc/sys/net", key].iter().collect();
    std::fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Makes the command's process die when the thread that starts it does, and keeps the terminal's
/// Ctrl-C from it: whoever starts it also ends it.
pub(crate) fn bind_to_parent(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    // SAFETY: the closure runs between fork and exec; prctl and getppid are async-signal-safe.
    unsafe {
        command.process_group(0).pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
            Ok(())
        });
    }
}

/// Asks a process of ours to end.
pub(crate) fn terminate(pid: u32) {
    // SAFETY: kill has no memory effects; the pid is that of a child not yet waited for.
    unsafe { libc::kill(pid.cast_signed(), libc::SIGTERM) };
}

/// How many segments this connection has sent again so far; right after connecting, its SYNs.
pub(crate) fn retransmissions(stream: &TcpStream) -> io::Result<u32> {
    // SAFETY: tcp_info is plain integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` octets to `info`, which is that large.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(info.tcpi_total_retrans) } else { Err(io::Error::last_os_error()) }
}

fn privileged() -> bool {
    const NET_ADMIN: u32 = 12;
    const NET_RAW: u32 = 13;
    const SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0);
    [NET_ADMIN, NET_RAW, SYS_ADMIN].iter().all(|bit| effective >> bit & 1 == 1)
}

fn enter_user_namespace() -> Result<(), Refusal> {
    // SAFETY: these take nothing and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let privileges = if privileged() {
        "network namespaces are refused in spite of root's capabilities"
    } else {
        "CAP_SYS_ADMIN, CAP_NET_ADMIN or CAP_NET_RAW is missing"
    };
    let refuse = |step: &str, error: io::Error| Refusal {
        missing: format!("{privileges}, and {step}: {error}"),
        remedy: user_namespace_remedy(),
    };
    unshare(libc::CLONE_NEWUSER)
        .map_err(|error| refuse("an unprivileged user namespace is refused", error))?;
    std::fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")))
        .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
        .map_err(|error| refuse("the user namespace takes no identity", error))?;
    unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET)
        .map_err(|error| refuse("the user namespace gives no rights", error))
}

/// The switch that forbids user namespaces differs between distributions: name the one that is on.
fn user_namespace_remedy() -> String {
    let read = |path: &str| std::fs::read_to_string(path).map(|value| value.trim().to_owned());
    let on = |path: &str, value: &str| read(path).is_ok_and(|found| found == value);
    let switch = if on("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else if on("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl kernel.unprivileged_userns_clone=1"
    } else if on("/proc/sys/user/max_user_namespaces", "0") {
        "sudo sysctl user.max_user_namespaces=10000"
    } else {
        return CONTAINER_REMEDY.to_owned();
    };
    format!("Run the lab as root (`sudo oe-node lab`), or allow user namespaces: `{switch}`.")
}

const CONTAINER_REMEDY: &str = "Run the lab as root (`sudo oe-node lab`); in a container, start \
     it with `--cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined \
     --security-opt apparmor=unconfined --device /dev/net/tun`.";

fn own_mounts() -> io::Result<()> {
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    mount(c"oe-node-lab", c"/dev/shm", c"tmpfs", libc::MS_NOSUID | libc::MS_NODEV, c"mode=0700")
}

fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    // SAFETY: all pointers are to NUL-terminated strings that outlive the call.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            if kind.is_empty() { ptr::null() } else { kind.as_ptr() },
            flags,
            data.as_ptr().cast(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare has no memory effects; CLONE_VM and CLONE_FILES are never among the flags.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
