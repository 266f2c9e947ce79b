//! What the tests share: the built binary, and an honest way to say that a test cannot run here.

pub mod crowd;
pub mod heap;
pub mod key;
pub mod names;
pub mod node;
pub mod pairbed;
pub mod place;

use std::path::PathBuf;
use std::process::Command;

/// The `oe-node` that was built with these tests.
///
/// # Panics
/// If it is not there: `cargo test --workspace` builds it, `cargo test -p tests` alone does not.
#[must_use]
pub fn oe_node() -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    // target/PROFILE/deps/TEST-HASH
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push("oe-node");
    assert!(path.exists(), "{} is not built: run cargo build -p daemon", path.display());
    path
}

/// What keeps a test that needs root and these programs from running; `None` if nothing does.
#[must_use]
pub fn missing(programs: &[&str]) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|uids| uids.split_whitespace().nth(1))
        == Some("0");
    if !root {
        return Some("needs root".to_owned());
    }
    programs.iter().find(|program| !installed(program)).map(|p| format!("{p} is not installed"))
}

fn installed(program: &str) -> bool {
    if program.contains('/') {
        return std::path::Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).any(|folder| folder.join(program).exists())
}

/// Says that a test did not run, and why; returns whether it did not.
///
/// # Panics
/// If there is a reason, although `OE_MUST_RUN` says that there is none here.
#[must_use]
pub fn skipped(test: &str, why: Option<String>) -> bool {
    let Some(why) = why else { return false };
    assert!(std::env::var_os("OE_MUST_RUN").is_none(), "OE_MUST_RUN, and {test} cannot: {why}");
    absent(test, &why);
    true
}

/// The same for what nobody here can install, as a feature of the kernel or packages of a mirror that
/// does not answer: it fails nowhere. Where
/// `OE_SKIPPED` names a file, that has the list.
pub fn absent(test: &str, why: &str) {
    // Straight to the descriptor: the test harness swallows what a passing test prints.
    let _ = Command::new("sh")
        .args(["-c", "echo \"skipped: $0\" | tee -a \"${OE_SKIPPED:-/dev/null}\" >&2"])
        .arg(format!("{test}: {why}"))
        .status();
}

/// What was to be made of packages could not be made: absent if that is a mirror that does not answer,
/// which is nobody's mistake, and otherwise skipped.
///
/// # Panics
/// If it is not the mirror, although `OE_MUST_RUN` says that nothing is missing here.
pub fn unmade(test: &str, why: &str, mirror_answers: bool) {
    if mirror_answers {
        let _ = skipped(test, Some(why.to_owned()));
    } else {
        absent(test, &format!("{why} (no mirror answers)"));
    }
}

/// Whether this machine's package mirrors answer. Nothing of apt's own state is touched.
#[must_use]
pub fn mirrors_answer() -> bool {
    let place = std::env::temp_dir().join(format!("oe-mirrors-{}", std::process::id()));
    if std::fs::create_dir_all(place.join("partial")).is_err() {
        return true;
    }
    let asked = Command::new("timeout")
        .args(["120", "apt-get", "-qq", "-o", "APT::Update::Error-Mode=any"])
        .args(["-o", "APT::Sandbox::User=root", "-o", "Dir::Cache::pkgcache="])
        .args(["-o", "Dir::Cache::srcpkgcache=", "-o"])
        .arg(format!("Dir::State::lists={}", place.display()))
        .arg("update")
        .output();
    let _ = std::fs::remove_dir_all(&place);
    asked.is_ok_and(|asked| asked.status.success())
}

#[cfg(test)]
mod tests {
    /// In a process of its own, which has those variables.
    #[test]
    fn a_skip_is_listed_and_can_be_made_a_failure() {
        let inside = "OE_TESTS_INSIDE";
        if std::env::var_os(inside).is_some() {
            match std::env::var("OE_TESTS_MIRROR").as_deref() {
                Ok(answers) => super::unmade("some test", "it may not", answers == "1"),
                Err(_) => assert!(super::skipped("some test", Some("it may not".to_owned()))),
            }
            return;
        }
        let list = std::env::temp_dir().join(format!("oe-skipped-{}", std::process::id()));
        for (must, mirror, passes) in [
            (false, None, true),
            (true, None, false),
            // What a mirror is to blame for fails nowhere, and a rig that is broken does.
            (true, Some("0"), true),
            (true, Some("1"), false),
            (false, Some("1"), true),
        ] {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["a_skip_is_listed_and_can_be_made_a_failure", "--nocapture"]);
            command.env(inside, "1").env("OE_SKIPPED", &list).env_remove("OE_MUST_RUN");
            if must {
                command.env("OE_MUST_RUN", "1");
            }
            if let Some(answers) = mirror {
                command.env("OE_TESTS_MIRROR", answers);
            }
            let ran = command.output().unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(ran.status.success(), passes, "{said}");
            assert!(said.contains("it may not"), "{said}");
        }
        let listed = std::fs::read_to_string(&list).unwrap();
        let _ = std::fs::remove_file(&list);
        assert_eq!(
            listed,
            "skipped: some test: it may not\n\
             skipped: some test: it may not (no mirror answers)\n\
             skipped: some test: it may not\n"
        );
    }
}
