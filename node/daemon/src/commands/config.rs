//! `oe-node config`: the commented example, a check of a file, units for systemd.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::{Config, EXAMPLE};
use crate::resolver::Resolver;
use crate::{run, view};

/// Arguments of `oe-node config`.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
#[command(
    after_help = "Exit status: 0 done, or nothing wrong with the configuration (warnings, on \
                        standard error, are nothing wrong), 1 otherwise, 2 wrong options."
)]
pub(crate) struct Args {
    /// Print the example, which documents every key.
    #[arg(long)]
    example: bool,
    /// Read a configuration with its policy groups, its connections' keys and its trust anchors, and
    /// say what is wrong with them.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Write oe-node.service and oe-node-guard.service there, for example to /etc/systemd/system.
    #[arg(long, value_name = "DIRECTORY")]
    systemd: Option<PathBuf>,
}

/// The units, by their names. The binary is the one that writes them.
const UNITS: [(&str, &str); 2] = [
    ("oe-node.service", include_str!("../systemd/oe-node.service")),
    ("oe-node-guard.service", include_str!("../systemd/oe-node-guard.service")),
];

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    if let Some(directory) = args.systemd {
        return super::show(write_units(&directory).map(|()| String::new()));
    }
    let Some(file) = args.check else {
        let written = std::io::stdout().write_all(EXAMPLE.as_bytes());
        return written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    };
    match check(&file) {
        Ok(warnings) => {
            super::warn(&warnings);
            ExitCode::SUCCESS
        }
        Err(error) => super::fail(&format!("{error:#}")),
    }
}

/// All that the daemon reads before it does anything, and the warnings that it would log.
fn check(file: &Path) -> anyhow::Result<Vec<String>> {
    let config = Config::load(Some(file))?;
    config.connections()?;
    let resolver = Resolver::new(&view::resolver_config(&config));
    resolver.map_err(|error| config.located(run::of_dns(error)))?;
    Ok(config.groups_and_warnings()?.1)
}

fn write_units(directory: &Path) -> anyhow::Result<()> {
    let binary = std::env::current_exe().context("where this program is")?;
    for (name, text) in UNITS {
        let file = directory.join(name);
        std::fs::write(&file, text.replace("@BINARY@", &binary.display().to_string()))
            .with_context(|| file.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_check_reads_what_the_daemon_reads() {
        let file = std::env::temp_dir().join(format!("oe-check-{}.toml", std::process::id()));
        let said = |text: &str| {
            std::fs::write(&file, text).unwrap();
            super::check(&file).unwrap_err().to_string()
        };
        let anchors = said("[dns]\n\ntrust-anchors = \"/nonexistent/anchors\"\n");
        assert!(anchors.contains(".toml:3: dns.trust-anchors: "), "{anchors}");
        let key = said(
            "[[connection]]\nname = \"office\"\ngateway = \"192.0.2.2\"\n\
             remote-key = \"/nonexistent/key\"\nlocal-subnets = [\"10.1.0.0/16\"]\n\
             remote-subnets = [\"10.2.0.0/16\"]\n",
        );
        assert!(key.contains(".toml:4: connection office: remote-key: /nonexistent/key"), "{key}");
        let policy = said("[policy]\ndirectory = \"/nonexistent\"\n");
        assert!(policy.contains(".toml:2: policy.directory: "), "{policy}");
        std::fs::remove_file(&file).unwrap();
    }
}
