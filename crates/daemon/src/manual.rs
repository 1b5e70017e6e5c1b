//! Manual pages of a program and of each of its commands.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use clap::{Command, builder::Resettable};

/// Writes the page of a command, or of the program.
///
/// # Errors
/// The writer's error.
pub fn write(mut program: Command, command: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    program.build();
    let source = source(&program);
    let page = command.and_then(|name| program.find_subcommand(name));
    write_page(page.unwrap_or(&program), &source, out)
}

/// Writes the pages of the program and of all commands, each as `NAME.1`.
///
/// # Errors
/// Where the directory cannot be written.
pub fn write_all(program: Command, directory: &Path) -> io::Result<()> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let source = source(&program);
    let mut open = vec![&program];
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().filter(|one| !one.is_hide_set()));
        let mut page = Vec::new();
        write_page(command, &source, &mut page)?;
        fs::write(directory.join(format!("{}.1", name(command))), page)?;
    }
    Ok(())
}

fn source(program: &Command) -> String {
    let version = program.get_version().unwrap_or_default();
    format!("{} {version}", program.get_name())
}

fn name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn write_page(command: &Command, source: &str, out: &mut dyn Write) -> io::Result<()> {
    let after = command.get_after_help().map(ToString::to_string);
    let bare = command.clone().after_help(Resettable::Reset);
    let mut rendered = Vec::new();
    clap_mangen::Man::new(bare).render(&mut rendered)?;
    for line in String::from_utf8_lossy(&rendered).lines() {
        // An empty date has to be quoted, or what follows takes its place.
        if line.starts_with(".TH ") {
            writeln!(out, ".TH {} 1 \"\" \"{source}\" SpeedMimi", name(command))?;
        } else {
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    after.map_or(Ok(()), |text| write_sections(&text, out))
}

/// What `--help` ends with: blocks such as `Examples:` become sections, and keep
/// their lines.
fn write_sections(text: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut in_notes = false;
    for block in text.split("\n\n") {
        let heading = block
            .split_once(":\n")
            .filter(|(heading, lines)| !heading.contains('\n') && lines.starts_with("  "));
        if let Some((heading, lines)) = heading {
            writeln!(out, ".SH {}\n.nf", heading.to_uppercase())?;
            for line in lines.lines() {
                writeln!(out, "{}", escaped(line.strip_prefix("  ").unwrap_or(line)))?;
            }
            writeln!(out, ".fi")?;
            in_notes = false;
            continue;
        }
        writeln!(out, "{}", if in_notes { ".PP" } else { ".SH NOTES" })?;
        in_notes = true;
        for line in block.lines() {
            writeln!(out, "{}", escaped(line.trim()))?;
        }
    }
    Ok(())
}

/// As text that is no request.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        let after = "Examples:\n  p go -1 | grep '\\.'\n  .p\n\nExit codes: 0 done,\n1 failure.";
        let go = Command::new("go").about("Goes").after_help(after);
        Command::new("p")
            .version("1.2")
            .about("A program")
            .subcommand(go)
    }

    #[test]
    fn a_page_has_its_commands_whole_name_and_keeps_the_lines_of_examples() {
        let mut page = Vec::new();
        write(program(), Some("go"), &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(
            page.contains("\n.TH p-go 1 \"\" \"p 1.2\" SpeedMimi\n"),
            "{page}"
        );
        let end = ".SH EXAMPLES\n.nf\np go \\-1 | grep '\\e.'\n\\&.p\n.fi\n.SH NOTES\n\
                   Exit codes: 0 done,\n1 failure.\n";
        assert!(page.ends_with(end), "{page}");
        assert!(!page.contains("EXTRA"), "{page}");
    }

    #[test]
    fn every_command_that_is_shown_has_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let hidden = Command::new("hidden").hide(true);
        write_all(program().subcommand(hidden), directory.path()).unwrap();
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["p-go.1", "p.1"]);
    }
}
