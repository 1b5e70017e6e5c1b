//! What reports say of this host where the configuration says it: its name, its id
//! and its labels.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use host_metrics::identity::Configured;
use monitor_proto::host_labels;

/// Makes sense of the settings.
///
/// # Errors
/// The key that is wrong, and what is.
pub(crate) fn of(
    name: Option<String>,
    id_file: Option<&Path>,
    given: Vec<(String, String)>,
) -> Result<Configured, (&'static str, String)> {
    let id = id_file.map(host_id).transpose();
    Ok(Configured {
        id: id.map_err(|what| ("host-id-file", what))?,
        name,
        labels: labels(given).map_err(|what| ("label", what))?,
    })
}

/// As the collector and the tables show it.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let valid = (1..=256).contains(&text.len()) && !text.contains(char::is_control);
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| "write 1 to 256 bytes without control characters".to_owned())
}

/// One label as it is written.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}`: write KEY=VALUE, such as region=north"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The first line of a file.
fn host_id(path: &Path) -> Result<String, String> {
    const BYTES_MAX: u64 = 256;
    let mut text = String::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(BYTES_MAX + 2).read_to_string(&mut text));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    let id = text.lines().next().unwrap_or_default().trim();
    let valid =
        (1..=BYTES_MAX).contains(&(id.len() as u64)) && id.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| id.to_owned()).ok_or_else(|| {
        format!(
            "{}: write an id on its first line, 1 to {BYTES_MAX} printable ASCII characters without spaces, \
             that no other host has",
            path.display()
        )
    })
}

fn labels(given: Vec<(String, String)>) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        if labels.contains_key(&key) {
            return Err(format!("{key:?} is given twice"));
        }
        labels.insert(key, value);
    }
    host_labels::check(&labels).map_err(|error| error.to_string())?;
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::command_line, config::Config};

    #[test]
    fn a_host_is_what_the_configuration_says() {
        let dir = tempfile::tempdir().unwrap();
        let id = dir.path().join("id");
        let with = |id: &Path, more: &str| {
            let file = dir.path().join("a.toml");
            let text = format!("host-id-file = {id:?}\n{more}");
            fs::write(&file, text).unwrap();
            let given = ["speedmimi-agent", "run", "--config"].map(Into::into);
            Config::load(command_line([&given[..], &[file.into()]].concat()))
        };
        fs::write(&id, "copy-7\nanything\n").unwrap();
        let more = "host-name = \"edge 7\"\nlabel = [\"region=north\", \"a.b=c=d\"]\n";
        let host = with(&id, more).unwrap().host;
        assert_eq!(host.id.as_deref(), Some("copy-7"));
        assert_eq!(host.name.as_deref(), Some("edge 7"));
        let labels = [("a.b", "c=d"), ("region", "north")];
        assert_eq!(
            host.labels,
            labels.map(|(k, v)| (k.into(), v.into())).into()
        );

        for (more, told) in [
            ("label = \"north\"", "write KEY=VALUE, such as region=north"),
            (
                "label = \"Region=north\"",
                "label \"Region\": a key has 1 to 63 letters a-z",
            ),
            ("label = [\"a=1\", \"a=2\"]", "\"a\" is given twice"),
            (
                "label = \"host.name=x\"",
                "label \"host.name\": this attribute is the agent's own",
            ),
            ("host-name = \"\"", "write 1 to 256 bytes"),
        ] {
            let error = daemon::error_chain(&with(&id, more).unwrap_err());
            assert!(error.contains(told), "{more}: {error}");
        }
        for text in ["", "\nx\n", "a b\n", "\u{e4}\n", &"x".repeat(257)] {
            fs::write(&id, text).unwrap();
            let error = with(&id, "").unwrap_err().to_string();
            assert!(
                error.contains("write an id on its first line"),
                "{text:?}: {error}"
            );
        }
        let error = with(&dir.path().join("none"), "").unwrap_err().to_string();
        assert!(error.contains("none: No such file or directory"), "{error}");
    }
}
