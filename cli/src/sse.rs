//! Server-sent events, read line by line.

use std::io::{self, BufRead, BufReader, Read};

/// A longer line is not from a collector.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// The events of a body.
#[derive(Debug)]
pub(crate) struct Events<R> {
    reader: BufReader<R>,
}

impl<R: Read> Events<R> {
    pub(crate) fn new(reader: BufReader<R>) -> Self {
        Self { reader }
    }

    /// The next event; `None` at the body's end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        let mut line = String::new();
        loop {
            line.clear();
            let n = (&mut self.reader)
                .take(LINE_BYTES_MAX)
                .read_line(&mut line)?;
            // What was begun and not finished does not count.
            if n == 0 {
                return Ok(None);
            }
            let text = line.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                if event.data.is_empty() {
                    event = Event::default();
                    continue;
                }
                return Ok(Some(event));
            }
            // A line without a field name is a comment.
            let (field, value) = text.split_once(':').unwrap_or((text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let text = ": hello\n\nevent: report\nid: 1-2\ndata: {\"a\":\ndata: 1}\n\n\
                    data:x\r\n\r\nevent: lost\ndata: half";
        let mut events = Events::new(BufReader::new(text.as_bytes()));
        let mut next = || events.next().unwrap().map(|e| (e.name, e.data));
        assert_eq!(next(), Some(("report".into(), "{\"a\":\n1}".into())));
        assert_eq!(next(), Some((String::new(), "x".into())));
        assert_eq!(next(), None);
    }
}
