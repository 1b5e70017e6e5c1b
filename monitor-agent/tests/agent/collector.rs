//! A collector that keeps every report by its key.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use monitor_proto::v1::{
    self, ExportOutcome,
    report_service_server::{ReportService, ReportServiceServer},
};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server as Tonic};

#[derive(Clone, Default)]
pub(crate) struct Collector {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    reports: BTreeMap<(u64, u64), v1::Report>,
    conflicts: u64,
}

/// A running server; dropping it ends every connection.
pub(crate) struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Collector {
    pub(crate) fn serve(&self, address: SocketAddr) -> Server {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let service = ReportServiceServer::new(self.clone());
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            let serving = Tonic::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            tokio::select! {
                served = serving => served.unwrap(),
                _ = stopped => {}
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(serve));
        Server {
            address,
            _stop: stop,
        }
    }

    pub(crate) fn reports(&self) -> usize {
        self.kept.lock().unwrap().reports.len()
    }

    pub(crate) fn conflicts(&self) -> u64 {
        self.kept.lock().unwrap().conflicts
    }

    pub(crate) fn has_reason(&self, reason: &str) -> bool {
        let kept = self.kept.lock().unwrap();
        let has = |r: &v1::Report| r.incomplete_reasons.iter().any(|have| have == reason);
        kept.reports.values().any(has)
    }

    /// The hosts that reported.
    pub(crate) fn hosts(&self) -> Vec<v1::Host> {
        let kept = self.kept.lock().unwrap();
        let mut hosts: Vec<_> = kept
            .reports
            .values()
            .map(|r| r.host.clone().unwrap())
            .collect();
        hosts.dedup();
        hosts
    }

    /// Requests and bytes: summed over all windows, and in the last totals.
    pub(crate) fn sums(&self) -> ((u64, u64), (u64, u64)) {
        let kept = self.kept.lock().unwrap();
        let of = |c: Option<&v1::Counters>| {
            let c = c.unwrap();
            (c.http.as_ref().unwrap().requests, c.bytes_received)
        };
        let add = |(a, b): (u64, u64), (c, d)| (a + c, b + d);
        let endpoints = kept.reports.values().flat_map(|r| &r.endpoints);
        let windows = endpoints.map(|e| of(e.window.as_ref()));
        let last = kept.reports.values().next_back().unwrap();
        let totals = last.endpoints.iter().map(|e| of(e.totals.as_ref()));
        (windows.fold((0, 0), add), totals.fold((0, 0), add))
    }

    /// Sequences that never came, within the one epoch that there is.
    pub(crate) fn missing(&self) -> u64 {
        let kept = self.kept.lock().unwrap();
        let (first, last) = (kept.reports.keys().next(), kept.reports.keys().next_back());
        let ((epoch, first), (last_epoch, last)) = (*first.unwrap(), *last.unwrap());
        assert_eq!((epoch, first), (last_epoch, 1));
        last - kept.reports.len() as u64
    }

    fn keep(&self, report: v1::Report) -> v1::ExportResponse {
        let mut kept = self.kept.lock().unwrap();
        let (epoch, sequence) = (report.agent.as_ref().unwrap().epoch, report.sequence);
        let outcome = match kept.reports.get(&(epoch, sequence)) {
            Some(before) if *before == report => ExportOutcome::Duplicate,
            Some(_) => ExportOutcome::Conflict,
            None => ExportOutcome::Stored,
        };
        if outcome == ExportOutcome::Conflict {
            kept.conflicts += 1;
        } else {
            kept.reports.insert((epoch, sequence), report);
        }
        v1::ExportResponse {
            epoch,
            sequence,
            outcome: outcome.into(),
            message: String::new(),
        }
    }
}

#[tonic::async_trait]
impl ReportService for Collector {
    type ExportStream = Pin<Box<dyn Stream<Item = Result<v1::ExportResponse, Status>> + Send>>;

    async fn export(
        &self,
        request: Request<Streaming<v1::ExportRequest>>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let collector = self.clone();
        let answer = move |request: Result<v1::ExportRequest, Status>| {
            Ok(collector.keep(request?.report.unwrap()))
        };
        Ok(Response::new(Box::pin(request.into_inner().map(answer))))
    }
}
