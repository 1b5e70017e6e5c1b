//! What the packages hold.

use std::{collections::BTreeSet, fs, process::Command};

use super::{
    Built, Case, PACKAGES,
    root::{Root, names},
};

pub(crate) const CASES: &[Case] = &[
    ("every_build_is_the_same_byte_for_byte", same_byte_for_byte),
    ("checksums_hold", checksums_hold),
    ("every_command_has_a_manual_page", manual_pages),
    ("rpms_have_the_files_of_the_debian_packages", same_files),
];

fn same_byte_for_byte(built: &Built) {
    let sums = |build: &str| fs::read_to_string(built.path(build).join("SHA256SUMS")).unwrap();
    assert_eq!(sums("new").lines().count(), 4 * PACKAGES.len());
    assert_eq!(sums("new"), sums("again"));
}

fn checksums_hold(built: &Built) {
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "--quiet", "SHA256SUMS"]);
    let output = check.current_dir(built.path("new")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Every command that a program's help names has a page that man shows without a
/// warning.
fn manual_pages(built: &Built) {
    let root = Root::over(built);
    root.install("new");
    let mut pages = 0;
    for program in [
        "speedmimi",
        "speedmimi-agent",
        "speedmimi-collector",
        "speedmimi-proxy",
    ] {
        pages += pages_of(&root, program);
    }
    let installed = root.run("find /usr/share/man/man1 -name 'speedmimi*' | wc -l");
    assert_eq!(installed, pages.to_string());
}

/// The number of pages of a command and those below it.
fn pages_of(root: &Root, command: &str) -> usize {
    let page = command.replace(' ', "-");
    let warnings = format!("man --warnings --pager=cat {page} 2>&1 >/dev/null");
    assert_eq!(root.run(&warnings), "", "{page}");
    let help = root.run(&format!("{command} --help"));
    let commands = help
        .split_once("Commands:\n")
        .map_or("", |(_, after)| after);
    let commands = commands.lines().take_while(|line| !line.is_empty());
    // Further lines of a description are indented more.
    let names = commands.filter_map(|line| {
        let name = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '))?;
        name.split(' ').next()
    });
    let below = names.filter(|name| *name != "help");
    1 + below
        .map(|name| pages_of(root, &format!("{command} {name}")))
        .sum::<usize>()
}

fn same_files(built: &Built) {
    for package in PACKAGES {
        let file = |ending: &str| {
            let all = names(&built.path("new"));
            let of = |name: &&String| name.starts_with(package) && name.ends_with(ending);
            built.path("new").join(all.iter().find(of).unwrap())
        };
        let list = |command: &mut Command| {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let deb = list(Command::new("dpkg-deb").arg("--contents").arg(file(".deb")));
        let deb: BTreeSet<String> = deb
            .lines()
            .map(|line| line.split_ascii_whitespace().nth(5).unwrap())
            .filter(|path| !path.ends_with('/') && !path.ends_with("changelog.Debian.gz"))
            .map(|path| path.trim_start_matches('.').to_owned())
            .map(|path| match path.strip_prefix("/lib/") {
                Some(rest) => format!("/usr/lib/{rest}"),
                None => path.replace("/zsh/vendor-completions/", "/zsh/site-functions/"),
            })
            .collect();
        let rpm = list(
            Command::new("rpm")
                .args(["--query", "--list", "--package"])
                .arg(file(".rpm")),
        );
        let documentation = format!("/usr/share/doc/{package}");
        let directories = [
            "/etc/speedmimi".to_owned(),
            "/usr/share/fish".to_owned(),
            "/usr/share/fish/vendor_completions.d".to_owned(),
            "/usr/share/zsh".to_owned(),
            "/usr/share/zsh/site-functions".to_owned(),
            format!("{documentation}/examples"),
            format!("{documentation}/examples/grafana"),
            format!("{documentation}/examples/prometheus"),
            documentation,
        ];
        let rpm: BTreeSet<String> = rpm
            .lines()
            .map(str::to_owned)
            .filter(|path| !directories.contains(path))
            .collect();
        assert_eq!(rpm, deb, "{package}");
    }
}
