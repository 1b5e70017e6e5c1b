//! Which streams wait for the collector: those whose answer is not there yet, and
//! those of which the next message is not.
//!
//! A message that is there waits for the peer, and the next one is asked for once
//! the peer has room for it: a stream of which nothing is taken is not counted.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Bytes, Service, http},
    server::NamedService,
};

use crate::{
    idle::{Streams, Waiting},
    listen::Origin,
};

/// A service whose streams are counted so.
#[derive(Clone, Debug)]
pub(super) struct Counted<S>(pub(super) S);

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let origin = request.extensions().get::<Origin>();
        let streams = origin.map(|origin| origin.streams.clone());
        let streams = streams.unwrap_or_default();
        let waiting = streams.begin();
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(waiting);
            Ok(answer?.map(|body| {
                Body::new(CountedBody {
                    body,
                    streams,
                    waiting: None,
                })
            }))
        })
    }
}

struct CountedBody {
    body: Body,
    streams: Streams,
    waiting: Option<Waiting>,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let poll = Pin::new(&mut self.body).poll_frame(context);
        if poll.is_ready() {
            self.waiting = None;
        } else if self.waiting.is_none() {
            self.waiting = Some(self.streams.begin());
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
