//! A message that was begun comes to its end in time.
//!
//! What has come of it is kept until all of it is there; the keep-alive only
//! tells that the peer lives.  It counts against the budget until then.  A stream of reports may be silent between two of
//! them for as long as it likes; a question is one message, and ends with it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use budget::{Budget, Held, Use};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, Service, http},
    server::NamedService,
};

use crate::listen::Origin;

/// The largest report at 40 KB a second.
const MESSAGE_MAX: Duration = Duration::from_secs(100);

/// A service that reads its requests so.
#[derive(Clone, Debug)]
pub(super) struct ReceiveTimeout<S> {
    service: S,
    silence: Silence,
    budget: Budget,
}

/// Between two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Allowed,
    Counts,
}

impl<S> ReceiveTimeout<S> {
    /// Takes streams of messages.
    pub(super) fn streams(service: S, budget: &Budget) -> Self {
        Self {
            service,
            silence: Silence::Allowed,
            budget: budget.clone(),
        }
    }

    /// Takes one message a request.
    pub(super) fn questions(service: S, budget: &Budget) -> Self {
        Self {
            service,
            silence: Silence::Counts,
            budget: budget.clone(),
        }
    }
}

impl<S: NamedService> NamedService for ReceiveTimeout<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for ReceiveTimeout<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let silence = self.silence;
        let origin = request.extensions().get::<Origin>();
        let peer = origin.map(|origin| origin.peer.name()).unwrap_or_default();
        let held = self.budget.open(Use::Messages, &peer);
        let limited = |body| Body::new(ReceiveTimeoutBody::new(body, silence, MESSAGE_MAX, held));
        self.service.call(request.map(limited))
    }
}

struct ReceiveTimeoutBody {
    body: Body,
    framing: Framing,
    silence: Silence,
    // The beginning of a message, and what came after it.
    held: Held,
    // While the rest of a message is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
    message_max: Duration,
}

impl ReceiveTimeoutBody {
    fn new(body: Body, silence: Silence, message_max: Duration, held: Held) -> Self {
        Self {
            body,
            framing: Framing::default(),
            silence,
            held,
            deadline: None,
            message_max,
        }
    }
}

impl HttpBody for ReceiveTimeoutBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Whole messages are taken before more is asked for.
        let begun = self.framing.begun as u64;
        self.held.shrink(begun);
        let poll = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(next) = &poll {
            let data = next
                .as_ref()
                .and_then(|next| next.as_ref().ok()?.data_ref());
            if let Some(data) = data {
                if let Err(exhausted) = self.held.resize(begun + data.len() as u64) {
                    let status = Status::resource_exhausted(exhausted.to_string());
                    return Poll::Ready(Some(Err(status)));
                }
                if self.framing.take(data) {
                    self.deadline = None;
                }
            }
            return poll;
        }
        if self.silence == Silence::Allowed && self.framing.between() {
            return Poll::Pending;
        }
        // Who reads waits for this message alone from here on: time in which
        // nothing was read does not count.
        let message_max = self.message_max;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(message_max)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(Status::deadline_exceeded(format!(
            "the message was not complete within {message_max:?}"
        )))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How far the current message has come: each is a byte of flags, four that
/// tell its length, and the message.
#[derive(Debug, Default)]
struct Framing {
    head: Vec<u8>,
    left: usize,
    // How much of it is there.
    begun: usize,
}

impl Framing {
    const HEAD_BYTES: usize = 5;

    fn between(&self) -> bool {
        self.head.is_empty()
    }

    /// Takes what has come; whether a message has ended with it.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while !bytes.is_empty() {
            let missing = Self::HEAD_BYTES - self.head.len();
            if missing > 0 {
                let (head, rest) = bytes.split_at(missing.min(bytes.len()));
                self.head.extend(head);
                self.begun += head.len();
                bytes = rest;
                let Ok([_, length @ ..]) = <[u8; Self::HEAD_BYTES]>::try_from(&*self.head) else {
                    return ended;
                };
                self.left = u32::from_be_bytes(length) as usize;
            }
            let taken = self.left.min(bytes.len());
            bytes = &bytes[taken..];
            self.left -= taken;
            self.begun += taken;
            if self.left == 0 {
                self.head.clear();
                self.begun = 0;
                ended = true;
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    #[test]
    fn messages_are_told_apart_however_they_come() {
        // One of three bytes, an empty one, one of a byte.
        let all = [0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for cut in 0..all.len() {
            let mut framing = Framing::default();
            let ended = framing.take(&all[..cut]);
            assert_eq!(ended, cut >= 8, "{cut}");
            assert_eq!(framing.between(), [0, 8, 13].contains(&cut), "{cut}");
            let of_message = cut
                - [0, 8, 13]
                    .into_iter()
                    .filter(|end| *end <= cut)
                    .max()
                    .unwrap();
            assert_eq!(framing.begun, of_message, "{cut}");
            assert!(framing.take(&all[cut..]) && framing.between(), "{cut}");
        }
        let mut framing = Framing::default();
        let ends = all.iter().filter(|byte| framing.take(&[**byte])).count();
        assert_eq!(ends, 3);
    }

    fn held() -> Held {
        Budget::new(1 << 20).open(Use::Messages, &"peer".into())
    }

    struct Queue(mpsc::UnboundedReceiver<&'static [u8]>);

    impl HttpBody for Queue {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let next = ready!(self.0.poll_recv(context));
            Poll::Ready(next.map(|bytes| Ok(Frame::data(Bytes::from_static(bytes)))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_messages_is_allowed_and_within_one_is_not() {
        let (sender, queue) = mpsc::unbounded_channel();
        let max = Duration::from_millis(20);
        let mut body =
            ReceiveTimeoutBody::new(Body::new(Queue(queue)), Silence::Allowed, max, held());
        let mut next = async || poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        sender.send(&[0, 0, 0, 0, 1, 7]).unwrap();
        assert!(next().await.unwrap().is_ok());
        assert!(timeout(5 * max, next()).await.is_err(), "it waits");
        sender.send(&[0, 0, 0, 0, 2, 7]).unwrap();
        assert!(next().await.unwrap().is_ok());
        let given_up = timeout(Duration::from_secs(30), next()).await;
        let error = given_up.expect("a deadline").unwrap().unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_does_not_come_or_does_not_end_is_given_up() {
        for begun in [&[][..], &[0, 0, 0, 0, 1, 7]] {
            let (sender, queue) = mpsc::unbounded_channel();
            let max = Duration::from_millis(20);
            let mut body =
                ReceiveTimeoutBody::new(Body::new(Queue(queue)), Silence::Counts, max, held());
            let mut next =
                async || poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            if !begun.is_empty() {
                sender.send(begun).unwrap();
                assert!(next().await.unwrap().is_ok());
            }
            let given_up = timeout(Duration::from_secs(30), next()).await;
            let error = given_up.expect("a deadline").unwrap().unwrap_err();
            assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
        }
    }
}
