//! CONNECT: a tunnel to a backend of the configuration.
//!
//! What the client names is a key, never an address: it is looked up in
//! `connect`, and the connection goes to a backend of the upstream that stands
//! there. Whoever may use this proxy can reach nothing else through it.

use std::rc::Rc;
use std::sync::Arc;

use super::client::{Conn, Head};
use super::exchange::{Exchange, Kind, Next};
use super::io::Pending;
use http1::forward;
use http1::reject::Reject;
use http1::request::RequestHead;

impl Conn {
    /// Takes a slot at a backend for a tunnel. What the client sent behind its
    /// request, `ahead`, belongs to the tunnel and waits for it.
    pub(super) fn begin_tunnel(&mut self, head: &RequestHead<'_, '_>, ahead: &[u8]) -> Head {
        let worker = Rc::clone(&self.worker);
        let local = worker.table();
        let config = &local.table.config;
        let Some(target) = config.connect_target(head.target) else {
            return self.refused(head, Reject::ConnectDenied, false);
        };
        let client = self.real_ip(head, config).unwrap_or(self.peer);
        let (upstream, algorithm) = (target.upstream, target.algorithm);
        let lease = match worker.choose_or_queue(&local, upstream, algorithm, client) {
            Ok(lease) => lease,
            Err(reject) => return self.refused(head, reject, false),
        };
        let mut exchange = worker.exchange();
        exchange.prepare(head, worker.draining.get());
        exchange.keep_alive = false;
        exchange.kind = Kind::Tunnel;
        exchange.route = (upstream, algorithm, client);
        if let Some(lease) = lease {
            exchange.upstream.assign(lease, None);
        }
        self.store_unprocessed(ahead);
        Head::Forward(exchange)
    }

    /// Says that the backend is there, and carries bytes from then on. That it
    /// could be connected to does not excuse requests that failed there, so its
    /// count of failures stays.
    pub(super) async fn open_tunnel(&mut self, exchange: &mut Exchange) -> Next {
        if let (Some(lease), Some(log_entry)) = (exchange.upstream.lease(), &mut self.log_entry) {
            log_entry.backend = Some(Arc::clone(&lease.backend.shared));
        }
        self.status = 200;
        let mut answer = self.worker.take_buffer();
        forward::write_connected(&mut answer, &self.worker.date.get());
        exchange.to_client = Pending::new(answer, 0);
        self.tunnel(exchange).await
    }
}
