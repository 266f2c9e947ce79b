//! `oe-node man`: the man pages, from the same words as `--help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

/// Arguments of `oe-node man`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory to write `oe-node.1`, `oe-node-run.1` and so on into; made if it does not exist.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Runs the command.
pub(crate) fn main(args: Args, oe_node: clap::Command) -> ExitCode {
    super::show(write(&args.directory, oe_node).map(|()| String::new()))
}

fn write(directory: &Path, oe_node: clap::Command) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut oe_node = without_help(oe_node);
    // Names of pages are names of commands: `oe-node-zone-generate.1`.
    oe_node.build();
    write_pages(&oe_node, directory)
}

fn write_pages(command: &clap::Command, directory: &Path) -> anyhow::Result<()> {
    for below in command.get_subcommands() {
        write_pages(below, directory)?;
    }
    let page = clap_mangen::Man::new(command.clone())
        .source(concat!("oe-node ", env!("CARGO_PKG_VERSION")));
    let file = directory.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text).context("a page")?;
    // The library's name for what stands below the options.
    let text = String::from_utf8(text).context("a page")?.replace(".SH EXTRA", ".SH NOTES");
    std::fs::write(&file, text).with_context(|| file.display().to_string())
}

/// Without `help` below any command: what it prints has pages already.
fn without_help(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let command = command.disable_help_subcommand(true);
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_help))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn every_command_has_its_page() {
        let directory = std::env::temp_dir().join(format!("oe-man-{}", std::process::id()));
        super::write(&directory, crate::commands::Cli::command()).unwrap();
        for page in ["oe-node.1", "oe-node-run.1", "oe-node-verify.1", "oe-node-zone-generate.1"] {
            let text = std::fs::read_to_string(directory.join(page)).expect(page);
            assert!(text.contains(".SH SYNOPSIS") && !text.contains("EXTRA"), "{page}");
        }
        let names = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name());
        let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        assert!(names.iter().all(|name| !name.contains("help")), "{names:?}");
        assert!(names.contains(&"oe-node-zone-rollover-continue.1".to_owned()), "{names:?}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
