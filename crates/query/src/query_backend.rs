//! Where answers come from: this collector's store, or engines that hold what
//! it and others passed on.

use std::collections::HashMap;

use budget::{Exhausted, Held};
use monitor_proto::v1;
use rollup::EndpointId;
use store::Fleet;

use crate::{
    endpoint_filter::EndpointFilter,
    engine::{Engine, EngineError},
    named_series::{EndpointNames, NamedSeries},
    partial::Partial,
    pool::Pool,
    read_error::ReadError,
    readers::Readers,
    series::Plan,
};

/// One of the two.
#[derive(Clone, Debug)]
pub enum QueryBackend {
    /// The newest reports are in memory, all others in the store.
    Store(Fleet, Readers),
    /// Nothing here is asked: any number of collectors give the same answers.
    Engine(Engine),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryBackendError {
    #[error(transparent)]
    Store(#[from] ReadError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Gives the series of one host the names that its newest report has.
fn name_of_host(series: &mut [NamedSeries], newest: &v1::Report) {
    let endpoints = newest.endpoints.iter();
    let names: HashMap<EndpointId, &v1::Endpoint> =
        endpoints.map(|e| (EndpointId::from(e), e)).collect();
    for one in series {
        if let Some(e) = one.endpoint.as_ref().and_then(|id| names.get(id)) {
            one.names = EndpointNames::from(*e);
        }
    }
}

impl QueryBackend {
    /// Whether there would be answers.
    pub async fn ready(&self) -> Result<(), QueryBackendError> {
        match self {
            Self::Store(_, readers) => Ok(readers
                .read(|connection| {
                    connection.query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(()))?;
                    Ok(())
                })
                .await?),
            Self::Engine(engine) => Ok(engine.ready().await?),
        }
    }

    /// Every host, by name and then id.
    pub async fn hosts(&self) -> Result<Partial<Vec<v1::HostSummary>>, QueryBackendError> {
        match self {
            Self::Store(fleet, _) => {
                let hosts = fleet.all();
                Ok(Partial::whole(
                    hosts.iter().map(|host| host.summary()).collect(),
                ))
            }
            Self::Engine(engine) => Ok(engine.hosts("").await?),
        }
    }

    /// The newest report of the host with this id, else of those with this name, and
    /// the room that they take.
    pub async fn newest(
        &self,
        host: &str,
        pool: &Pool,
        mut room: Held,
    ) -> Result<(Partial<Vec<v1::Report>>, Held), QueryBackendError> {
        let hosts = match self {
            Self::Store(fleet, _) => fleet.find(host),
            Self::Engine(engine) => return Ok((engine.newest(host).await?, room)),
        };
        let decoded = pool.run(move || {
            let reports = hosts.iter().map(|host| host.report(&mut room));
            let reports: Result<Vec<_>, _> = reports.collect();
            reports.map(|reports| {
                (
                    Partial::whole(reports.into_iter().flatten().collect()),
                    room,
                )
            })
        });
        let decoded = decoded.await.map_err(|_| ReadError::Busy)?;
        Ok(decoded.map_err(ReadError::from)?)
    }

    /// How many hosts a choice means, as far as that is known at once.
    pub fn hosts_meant(&self, host: &str) -> u64 {
        match self {
            Self::Store(fleet, _) => fleet.chosen(host).len() as u64,
            Self::Engine(_) => 1,
        }
    }

    /// The series of a metric of the chosen hosts, and the room that they take.
    pub async fn series(
        &self,
        host: &str,
        filter: EndpointFilter,
        plan: Plan,
        room: Held,
    ) -> Result<(Partial<Vec<NamedSeries>>, Held), QueryBackendError> {
        let (fleet, readers) = match self {
            Self::Store(fleet, readers) => (fleet, readers),
            Self::Engine(engine) => return Ok((engine.series(host, &filter, &plan).await?, room)),
        };
        let hosts = fleet.chosen(host);
        let read = readers.series(&hosts, filter, plan, room).await?;
        let partial = read.reading.partial();
        let by_key: HashMap<i64, _> = hosts.iter().map(|host| (host.row.key, host)).collect();
        let named = read.series.into_iter().filter_map(|one| {
            let host = by_key.get(&one.host)?;
            Some(NamedSeries {
                host_name: host.newest.host.name.clone(),
                host_id: host.newest.host.id.clone(),
                endpoint: one.endpoint,
                names: EndpointNames::default(),
                samples: one.samples,
            })
        });
        let named = Partial {
            value: named.collect(),
            partial,
        };
        Ok((named, read.reading.held))
    }

    /// Gives series of endpoints the names that their hosts' newest reports have; those
    /// of an engine have theirs already.
    pub async fn name(
        &self,
        mut series: Partial<Vec<NamedSeries>>,
        pool: &Pool,
        mut room: Held,
    ) -> Result<(Partial<Vec<NamedSeries>>, Held), QueryBackendError> {
        let fleet = match self {
            Self::Store(fleet, _) => fleet.clone(),
            Self::Engine(_) => return Ok((series, room)),
        };
        let named = pool.run(move || {
            // The series of a host stand together: its report is decoded once.
            for of_host in series.value.chunk_by_mut(|a, b| a.host_id == b.host_id) {
                let [first, ..] = of_host else { continue };
                if first.endpoint.is_none() {
                    continue;
                }
                let before = room.bytes();
                for host in fleet.find(&first.host_id) {
                    if let Some(newest) = host.report(&mut room)? {
                        name_of_host(of_host, &newest);
                    }
                }
                let names: u64 = of_host.iter().map(|one| one.names.bytes()).sum();
                room.resize(before + names)?;
            }
            Ok::<_, Exhausted>((series, room))
        });
        let named = named.await.map_err(|_| ReadError::Busy)?;
        Ok(named.map_err(ReadError::from)?)
    }
}
