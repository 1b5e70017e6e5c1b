//! Where answers come from: this collector's store, or engines that hold what
//! it and others passed on.

use std::collections::HashMap;

use monitor_proto::v1;

use crate::{
    budget::Held,
    engine::{Engine, EngineError, Partly},
    fleet::Fleet,
    pool::Pool,
    rollup::EndpointId,
    series::{Plan, Samples},
    store::{EndpointFilter, ReadError, Readers},
};

/// One of the two.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// The newest reports are in memory, all others in the store.
    Store(Fleet, Readers),
    /// Nothing here is asked: any number of collectors give the same answers.
    Engine(Engine),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadingError {
    #[error(transparent)]
    Store(#[from] ReadError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// One series, and whose it is.
#[derive(Debug)]
pub(crate) struct NamedSeries {
    pub(crate) host_name: String,
    pub(crate) host_id: String,
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) samples: Samples,
}

impl Reading {
    /// Whether there would be answers.
    pub(crate) async fn ready(&self) -> Result<(), ReadingError> {
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
    pub(crate) async fn hosts(&self) -> Result<Partly<Vec<v1::HostSummary>>, ReadingError> {
        match self {
            Self::Store(fleet, _) => {
                let hosts = fleet.all();
                Ok(Partly::whole(
                    hosts.iter().map(|host| host.summary()).collect(),
                ))
            }
            Self::Engine(engine) => Ok(engine.hosts("").await?),
        }
    }

    /// The newest report of the host with this id, else of those with this name, and
    /// the room that they take.
    pub(crate) async fn newest(
        &self,
        host: &str,
        pool: &Pool,
        mut room: Held,
    ) -> Result<(Partly<Vec<v1::Report>>, Held), ReadingError> {
        let hosts = match self {
            Self::Store(fleet, _) => fleet.find(host),
            Self::Engine(engine) => return Ok((engine.newest(host).await?, room)),
        };
        let decoded = pool.run(move || {
            let reports = hosts.iter().map(|host| host.report(&mut room));
            let reports: Result<Vec<_>, _> = reports.collect();
            reports.map(|reports| (Partly::whole(reports.into_iter().flatten().collect()), room))
        });
        let decoded = decoded.await.map_err(|_| ReadError::Busy)?;
        Ok(decoded.map_err(ReadError::from)?)
    }

    /// How many hosts a choice means, as far as that is known at once.
    pub(crate) fn hosts_meant(&self, host: &str) -> u64 {
        match self {
            Self::Store(fleet, _) => fleet.chosen(host).len() as u64,
            Self::Engine(_) => 1,
        }
    }

    /// The series of a metric of the chosen hosts, and the room that they take.
    pub(crate) async fn series(
        &self,
        host: &str,
        filter: EndpointFilter,
        plan: Plan,
        room: Held,
    ) -> Result<(Partly<Vec<NamedSeries>>, Held), ReadingError> {
        let (fleet, readers) = match self {
            Self::Store(fleet, readers) => (fleet, readers),
            Self::Engine(engine) => return Ok((engine.series(host, &filter, &plan).await?, room)),
        };
        let hosts = fleet.chosen(host);
        let keys: Vec<i64> = hosts.iter().map(|host| host.row.key).collect();
        let read = readers.series(&keys, filter, plan, room).await?;
        let partial = read.partial();
        let by_key: HashMap<i64, _> = hosts.iter().map(|host| (host.row.key, host)).collect();
        let named = read.series.into_iter().filter_map(|one| {
            let host = by_key.get(&one.host)?;
            Some(NamedSeries {
                host_name: host.newest.host.name.clone(),
                host_id: host.newest.host.id.clone(),
                endpoint: one.endpoint,
                samples: one.samples,
            })
        });
        let named = Partly {
            value: named.collect(),
            partial,
        };
        Ok((named, read.held))
    }
}
