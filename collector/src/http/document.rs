//! Reports as one text, written one after another.
//!
//! As one text, or decoded at once, a page of them would be the largest thing in
//! memory: each is decoded when it is written, and forgotten then.

use std::{sync::Arc, vec};

use axum::body::Bytes;
use budget::{Exhausted, Held};
use daemon::log_limit;
use monitor_proto::{json, v1};
use store::{
    HostState,
    codec::{self, CodecError},
};

use super::hold::CHUNK_BYTES;

/// Room for one report of ordinary size while it is written, which every answer has
/// from its beginning: it does not break off where others take what is left.
pub(super) const SCRATCH_BYTES: u64 = 512 << 10;
/// The report, what is made of it for JSON, and the text are there at once.
const COPIES: u64 = 3;

/// Where the reports come from.
pub(super) enum Source {
    /// The store.
    Kept(vec::IntoIter<Vec<u8>>),
    /// The newest of each host.
    Newest(vec::IntoIter<Arc<HostState>>),
    /// An engine.
    Made(vec::IntoIter<v1::Report>),
}

impl Source {
    /// The next report, where it fits, and whose it is where that is known without it;
    /// a body that cannot be read leaves a gap.
    fn next(
        &mut self,
        fit: impl FnOnce(u64) -> Result<(), Exhausted>,
    ) -> Option<(String, Result<v1::Report, CodecError>)> {
        Some(match self {
            Self::Kept(bodies) => {
                let body = bodies.next()?;
                (String::new(), codec::decode_where(&body, fit))
            }
            Self::Newest(hosts) => {
                let host = hosts.next()?;
                let report = codec::decode_where(&host.newest.body, fit);
                (host.row.id.clone(), report)
            }
            Self::Made(reports) => (String::new(), Ok(reports.next()?)),
        })
    }
}

/// How they are written.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) write: fn(&json::Report) -> String,
    pub(super) between: &'static str,
}

/// What comes behind the last report, where those of these hosts cannot be read.
type After = Box<dyn FnOnce(&[String]) -> String + Send>;

/// The text in chunks.
pub(super) struct Document {
    source: Source,
    form: Form,
    /// Of the source, and of one report while it is written.
    room: Held,
    own: u64,
    /// Of the chunks.
    stream: Arc<Held>,
    /// What comes before the next report.
    before: String,
    /// `None` once it has come.
    after: Option<After>,
    unreadable: Vec<String>,
}

impl Document {
    pub(super) fn new(
        source: Source,
        form: Form,
        (room, stream): (Held, Held),
        before: &str,
        after: impl FnOnce(&[String]) -> String + Send + 'static,
    ) -> Self {
        Self {
            source,
            form,
            own: room.bytes().saturating_sub(SCRATCH_BYTES),
            room,
            stream: Arc::new(stream),
            before: before.to_owned(),
            after: Some(Box::new(after)),
            unreadable: Vec::new(),
        }
    }

    /// The next report's text.
    fn text(&mut self) -> Option<Result<String, Exhausted>> {
        loop {
            let (room, own) = (&mut self.room, self.own);
            let report = self.source.next(|decoded| {
                let bytes = own + COPIES * decoded;
                room.resize(bytes.max(room.bytes()))
            });
            let (host, report) = report?;
            let report = match report {
                Ok(report) => report,
                Err(CodecError::Exhausted(exhausted)) => return Some(Err(exhausted)),
                Err(error) => {
                    if let Some(left_out) = log_limit::line("unreadable report", &host) {
                        tracing::error!(host, %error, left_out, "cannot decode a stored report");
                    }
                    self.unreadable.push(host);
                    continue;
                }
            };
            return Some(Ok((self.form.write)(&json::Report::from(&report))));
        }
    }

    fn chunk(&mut self) -> Result<Option<String>, Exhausted> {
        let mut out = String::new();
        while out.len() < CHUNK_BYTES && self.after.is_some() {
            let text = self.text().transpose()?;
            self.room.shrink(self.own + SCRATCH_BYTES);
            match text {
                Some(text) => {
                    out.push_str(&std::mem::replace(
                        &mut self.before,
                        self.form.between.into(),
                    ));
                    out.push_str(&text);
                }
                None => {
                    // Before the first report nothing was written.
                    if self.before != self.form.between {
                        out.push_str(&self.before);
                    }
                    if let Some(after) = self.after.take() {
                        out.push_str(&after(&self.unreadable));
                    }
                }
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }
}

impl Iterator for Document {
    type Item = Result<Bytes, Exhausted>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.chunk().transpose()?;
        Some(chunk.map(|chunk| self.stream.share(chunk)))
    }
}

#[cfg(test)]
mod tests {
    use budget::{Budget, Use};

    use super::*;

    fn document(reports: Vec<v1::Report>) -> Document {
        let budget = Budget::new(64 << 20);
        let open = || budget.open(Use::Answers, &"peer".into());
        let room = (open(), open());
        let form = Form {
            write: |report| serde_json::to_string(report).unwrap(),
            between: ",",
        };
        let after = |_: &[String]| r#"],"next_cursor":null}"#.to_owned();
        Document::new(
            Source::Made(reports.into_iter()),
            form,
            room,
            r#"{"reports":["#,
            after,
        )
    }

    #[test]
    fn the_chunks_are_one_document() {
        for n in [0, 1, 2, 1000] {
            let chunks: Vec<Bytes> = document(vec![v1::Report::default(); n])
                .map(Result::unwrap)
                .collect();
            assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 4096));
            let read: serde_json::Value = serde_json::from_slice(&chunks.concat()).unwrap();
            assert_eq!(read["reports"].as_array().unwrap().len(), n);
            assert!(read["next_cursor"].is_null());
        }
    }

    #[test]
    fn an_answer_without_room_ends_with_an_error() {
        let body = codec::encode(&v1::Report::default()).unwrap();
        let budget = Budget::new(800);
        let _other = budget.take(Use::Answers, &"other".into(), 150).unwrap();
        let open = || budget.open(Use::Answers, &"peer".into());
        let room = (open(), open());
        let form = document(Vec::new()).form;
        let source = Source::Kept(vec![body].into_iter());
        let mut document = Document::new(source, form, room, "[", |_| "]".into());
        assert_eq!(document.next(), Some(Err(Exhausted)));
    }
}
