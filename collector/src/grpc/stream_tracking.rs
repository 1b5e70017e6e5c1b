//! Which streams wait for the collector: those whose answer is not there yet, and
//! those of which the next message is not.
//!
//! A message that is there waits for the peer, and the next one is asked for once
//! the peer has room for it: a stream of which nothing is taken is not counted.
//! What readers let wait counts against the budget of memory instead.  An agent's
//! acknowledgements do not: each stream holds one of some bytes, and readers that
//! have the whole room would keep agents from being told.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use budget::{Budget, Held, Use};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{
    Status,
    body::Body,
    codegen::{
        BoxFuture, Bytes, Service,
        http::{self, HeaderMap},
    },
    server::NamedService,
};

use crate::{
    idle::{Streams, Waiting},
    listen::Origin,
};

/// A service whose streams are tracked.
#[derive(Clone, Debug)]
pub(super) struct StreamTracking<S> {
    service: S,
    /// Of what waits to be taken, where that counts.
    budget: Option<Budget>,
}

impl<S> StreamTracking<S> {
    /// Answers with acknowledgements.
    pub(super) fn acknowledgements(service: S) -> Self {
        Self {
            service,
            budget: None,
        }
    }

    /// Answers with what readers ask for.
    pub(super) fn answers(service: S, budget: Budget) -> Self {
        Self {
            service,
            budget: Some(budget),
        }
    }
}

/// The room that an answer's parts have until it has ended, as an extension of it.
#[derive(Clone, Debug)]
pub(super) struct Room {
    _held: Arc<Held>,
}

impl Room {
    pub(super) fn new(held: Held) -> Self {
        Self {
            _held: Arc::new(held),
        }
    }
}

impl<S: NamedService> NamedService for StreamTracking<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for StreamTracking<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let origin = request.extensions().get::<Origin>();
        let streams = origin.map(|origin| origin.streams.clone());
        let streams = streams.unwrap_or_default();
        let peer = origin.map(|origin| origin.peer.name()).unwrap_or_default();
        let budget = self.budget.clone();
        let waiting = streams.begin();
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(waiting);
            let mut answer = answer?;
            let room = answer.extensions_mut().remove::<Room>();
            Ok(answer.map(|body| {
                Body::new(TrackedBody {
                    body,
                    streams,
                    waiting: None,
                    budget,
                    peer,
                    ended: false,
                    _room: room,
                })
            }))
        })
    }
}

struct TrackedBody {
    body: Body,
    streams: Streams,
    waiting: Option<Waiting>,
    budget: Option<Budget>,
    peer: Arc<str>,
    // There was no room for the rest.
    ended: bool,
    _room: Option<Room>,
}

impl TrackedBody {
    /// The frame, counted until all of it is sent.
    fn hold(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
        let Some(budget) = &self.budget else {
            return Ok(frame);
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Ok(trailers),
        };
        let bytes = data.len() as u64;
        let held = budget.take(Use::Answers, &self.peer, bytes);
        let held = held.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok(Frame::data(held.around(data)))
    }

    /// The answer ends with this status, as the peer is told.
    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let poll = Pin::new(&mut self.body).poll_frame(context);
        if poll.is_ready() {
            self.waiting = None;
        } else if self.waiting.is_none() {
            self.waiting = Some(self.streams.begin());
        }
        let Some(frame) = ready!(poll) else {
            return Poll::Ready(None);
        };
        let held = self.hold(frame?);
        Poll::Ready(Some(held.or_else(|status| self.end(&status))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
