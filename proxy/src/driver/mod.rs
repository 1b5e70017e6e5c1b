//! The driver: sockets, tasks and deadlines around the HTTP core.
//!
//! One thread per worker, each with its own listener (`SO_REUSEPORT`), its own
//! single-threaded runtime, its own pool of backend connections and one scratch
//! buffer. Nothing of a request is kept across a wait but what could not be
//! handled yet, which is what keeps thousands of connections in the cache.

pub mod bulk;
pub mod client;
pub mod connect;
pub mod exchange;
pub mod io;
pub mod listener;
pub mod pool;
pub mod queue;
mod repeat;
pub mod response;
pub mod run;
pub mod shortage;
pub mod splice;
pub mod steer;
pub mod timers;
pub mod tunnel;
pub mod upstream;
pub mod worker;
