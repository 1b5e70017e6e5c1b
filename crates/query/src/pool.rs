//! Threads on which answers are made.
//!
//! Decoding a fleet's reports and writing them as text takes seconds of a
//! processor: on the threads that serve connections, agents would wait for it.
//! Here it is done a piece at a time, and only where nothing else wants the
//! processor.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, mpsc},
    task::{Context, Poll, ready},
    thread,
};

use rustix::{process::setpriority_process, thread::gettid};
use tokio::sync::oneshot;
use tokio_stream::Stream;

/// Enough that one large answer does not hold up the others.
const THREADS: usize = 2;
/// Jobs that wait: more than there are connections, of which each has one.
const QUEUE_MAX: usize = 4096;
/// The part of a busy processor that a thread gets beside those of agents: a tenth.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// There is no place for a job, or no thread any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many concurrent requests: try again shortly")]
pub struct Busy;

/// A handle on the threads; they end when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Pool {
    jobs: mpsc::SyncSender<Job>,
}

impl Pool {
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..THREADS {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("answer-{n}"))
                .spawn(move || serve(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs a job on one of the threads.
    pub async fn run<T, F>(&self, job: F) -> Result<T, Busy>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.submit(job)?.await.map_err(|_| Busy)
    }

    fn submit<T, F>(&self, job: F) -> Result<oneshot::Receiver<T>, Busy>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The asker may have gone away meanwhile: then nothing is done.
            if !answer.is_closed() {
                drop(answer.send(job()));
            }
        });
        self.jobs.try_send(job).map_err(|_| Busy)?;
        Ok(answered)
    }

    /// Takes each item on one of the threads, once it is asked for.
    pub fn stream<I>(&self, items: I) -> impl Stream<Item = Result<I::Item, Busy>> + Unpin + use<I>
    where
        I: Iterator + Send + Unpin + 'static,
        I::Item: Send + 'static,
    {
        Pieces {
            pool: self.clone(),
            state: State::Waiting(Some(items)),
        }
    }
}

fn serve(queue: &Mutex<mpsc::Receiver<Job>>) {
    give_way();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(mpsc::RecvError) => return,
        }
    }
}

/// Makes this thread one that others go before.
pub fn give_way() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

/// Items that are made as they are asked for.
struct Pieces<I: Iterator> {
    pool: Pool,
    state: State<I>,
}

enum State<I: Iterator> {
    /// Until the next one is asked for; `None` once there is none.
    Waiting(Option<I>),
    Working(oneshot::Receiver<(I, Option<I::Item>)>),
}

impl<I> Stream for Pieces<I>
where
    I: Iterator + Send + Unpin + 'static,
    I::Item: Send + 'static,
{
    type Item = Result<I::Item, Busy>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let State::Waiting(items) = &mut self.state {
            let Some(mut items) = items.take() else {
                return Poll::Ready(None);
            };
            let submitted = self.pool.submit(move || {
                let next = items.next();
                (items, next)
            });
            match submitted {
                Ok(working) => self.state = State::Working(working),
                Err(busy) => return Poll::Ready(Some(Err(busy))),
            }
        }
        let State::Working(working) = &mut self.state else {
            return Poll::Ready(None);
        };
        let done = ready!(Pin::new(working).poll(context));
        self.state = State::Waiting(None);
        Poll::Ready(match done {
            Ok((items, Some(item))) => {
                self.state = State::Waiting(Some(items));
                Some(Ok(item))
            }
            Ok((_, None)) => None,
            // The job broke, and said so.
            Err(_) => Some(Err(Busy)),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn items_come_in_order_and_are_made_when_they_are_asked_for() {
        let pool = Pool::start().unwrap();
        let (made, see) = mpsc::channel();
        let items = (0..5).inspect(move |n| made.send(*n).unwrap());
        let mut stream = pool.stream(items);
        assert!(see.try_recv().is_err(), "none before the first question");
        assert_eq!(stream.next().await, Some(Ok(0)));
        assert_eq!(see.try_iter().collect::<Vec<_>>(), [0]);
        let rest: Vec<_> = stream.collect().await;
        assert_eq!(rest, [Ok(1), Ok(2), Ok(3), Ok(4)]);
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn the_threads_give_way_to_others() {
        let pool = Pool::start().unwrap();
        let nice = pool.run(|| rustix::process::getpriority_process(Some(gettid())));
        assert_eq!(nice.await.unwrap().unwrap(), NICE);
    }
}
