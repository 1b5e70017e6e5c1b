//! The driver: sockets, tasks and deadlines around the HTTP core.
//!
//! One thread per worker, each with its own listener (`SO_REUSEPORT`), its own
//! single-threaded runtime, its own pool of backend connections and one scratch
//! buffer. Nothing of a request is kept across a wait but what could not be
//! handled yet, which is what keeps thousands of connections in the cache.

pub mod bulk;
pub mod client;
pub mod connect;
pub mod eviction;
pub mod exchange;
pub mod io;
pub mod listener;
pub mod pool;
pub mod queue;
mod request;
pub mod response;
mod retry;
pub mod reuseport;
pub mod run;
pub mod splice;
pub mod timers;
pub mod tunnel;
pub mod upstream;
mod watch;
pub mod worker;
