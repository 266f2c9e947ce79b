//! Network namespaces for tests: one for each test, gone with its thread.
#![allow(unsafe_code)] // unshare(2) has no safe wrapper among our dependencies.

use std::process::Command;

/// Runs a test in a network namespace of its own, with `lo` up and a single-threaded runtime.
/// Without root it says so and runs nothing.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    // SAFETY: geteuid reads a number and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: a network namespace needs root");
        return;
    }
    let thread = std::thread::spawn(|| {
        // SAFETY: unshare changes only the calling thread's namespace, and this thread was made
        // for that.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!("skipped: unshare: {}", std::io::Error::last_os_error());
            return;
        }
        run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command line (words separated by blanks) and returns its output.
pub(crate) fn run(line: &str) -> String {
    let (ok, output) = try_run(line);
    assert!(ok, "{line}: {output}");
    output
}

/// As [`run`], for commands that may fail.
pub(crate) fn try_run(line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// Whether every one of these programs is installed; says which is not.
pub(crate) fn has(programs: &[&str]) -> bool {
    for program in programs {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
        });
        if !found {
            eprintln!("skipped: {program} is not installed");
            return false;
        }
    }
    true
}
