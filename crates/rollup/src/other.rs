//! Counters that roll-ups hold since a later version than the rest.

use monitor_proto::v1;

use super::EndpointRoll;

/// One of [`OtherCounters`].
#[derive(Clone, Copy, Debug)]
pub struct OtherCounter {
    /// In reports and series.
    pub name: &'static str,
    /// The family of `/metrics`.
    pub prometheus: &'static str,
    pub seen: Seen,
    /// `None` where a part was summed by a version that did not have it.
    pub read: fn(&OtherCounters) -> Option<u64>,
    pub place: fn(&mut EndpointRoll) -> &mut u64,
}

/// Where a counter is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// At every level.
    Tcp,
    /// At level `http`.
    Http,
    /// At level `http`, of streams that are HTTP/1.
    Http1,
}

macro_rules! counters {
    (tcp { $($tcp:ident = $tcp_tag:tt,)* } http { $($http:ident = $http_tag:tt $seen:ident,)* }) => {
        /// Their sums over the windows of a bucket.
        #[derive(Clone, Copy, PartialEq, prost::Message)]
        pub struct OtherCounters {
            $(#[prost(uint64, optional, tag = $tcp_tag)] pub $tcp: Option<u64>,)*
            $(#[prost(uint64, optional, tag = $http_tag)] pub $http: Option<u64>,)*
        }

        impl OtherCounters {
            /// Those of one window.
            pub(super) fn of(window: &v1::Counters) -> Self {
                let http = window.http.as_ref();
                Self {
                    $($tcp: Some(window.$tcp),)*
                    $($http: Some(http.map_or(0, |http| http.$http)),)*
                }
            }

            pub(super) fn add(&mut self, other: &Self) {
                $(self.$tcp = sum(self.$tcp, other.$tcp);)*
                $(self.$http = sum(self.$http, other.$http);)*
            }
        }

        /// All of them.
        pub const OTHER_COUNTERS: &[OtherCounter] = &[
            $(counters!(@one $tcp Tcp),)*
            $(counters!(@one $http $seen),)*
        ];
    };
    (@one $field:ident $seen:ident) => {
        OtherCounter {
            name: stringify!($field),
            prometheus: concat!("speedmimi_", stringify!($field), "_total"),
            seen: Seen::$seen,
            read: |counters| counters.$field,
            place: |roll| roll.other.$field.get_or_insert_default(),
        }
    };
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.zip(other).map(|(one, other)| one.saturating_add(other))
}

// The tags are those of the form on disk: one that was used is not used again.
counters! {
    tcp {
        connections_adopted = "1",
        connections_established = "2",
        failed_before_syn = "3",
        bytes_unacked = "4",
        packets_received = "5",
        packets_sent = "6",
    }
    http {
        requests_without_response = "7" Http1,
        unparsed = "8" Http,
        pipelined = "9" Http,
        suspected = "10" Http,
    }
}
