//! What roll-ups hold of an endpoint: its form on disk, and its counters by name.

use monitor_proto::{figures::Seen, rolled_counters, v1};

use super::GaugeRoll;

/// A counter of roll-ups.
#[derive(Clone, Copy, Debug)]
pub struct RolledCounter {
    /// In reports and series.
    pub name: &'static str,
    /// Where it is measured.
    pub seen: Seen,
    /// `None` where a part was summed by a version that did not have it.
    pub read: fn(&EndpointRoll) -> Option<u64>,
    /// Where it is; 0 where it was not there.
    pub place: fn(&mut EndpointRoll) -> &mut u64,
}

// The tags are those of the form on disk: one that was used is not used again.
macro_rules! endpoint_roll {
    (
        first tcp { $($tcp:ident = $tcp_tag:tt $tcp_seen:ident,)* }
        first http { $($http:ident = $http_tag:tt $http_seen:ident,)* }
        later tcp { $($later_tcp:ident = $later_tcp_tag:tt $later_tcp_seen:ident,)* }
        later http { $($later_http:ident = $later_http_tag:tt $later_http_seen:ident,)* }
    ) => {
        /// An endpoint in one bucket: the sums of its windows.
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct EndpointRoll {
            /// The time that its windows cover.
            #[prost(uint64, tag = "1")]
            pub covered_ns: u64,
            /// The part of it in which HTTP was counted.
            #[prost(uint64, tag = "2")]
            pub http_ns: u64,
            /// Reports that were not complete.
            #[prost(uint64, tag = "3")]
            pub incomplete: u64,
            /// As each window's end had it.
            #[prost(message, required, tag = "4")]
            pub active: GaugeRoll,
            #[prost(uint64, tag = "6")]
            pub connections_failed: u64,
            #[prost(uint64, tag = "13")]
            pub responses_1xx: u64,
            #[prost(uint64, tag = "14")]
            pub responses_2xx: u64,
            #[prost(uint64, tag = "15")]
            pub responses_3xx: u64,
            #[prost(uint64, tag = "16")]
            pub responses_4xx: u64,
            #[prost(uint64, tag = "17")]
            pub responses_5xx: u64,
            #[prost(message, required, tag = "18")]
            pub exchange_duration: v1::Histogram,
            #[prost(message, required, tag = "19")]
            pub connect_duration: v1::Histogram,
            #[prost(message, required, tag = "20")]
            pub later: LaterCounters,
            $(#[prost(uint64, tag = $tcp_tag)] pub $tcp: u64,)*
            $(#[prost(uint64, tag = $http_tag)] pub $http: u64,)*
        }

        impl EndpointRoll {
            /// Takes the counters of one window.
            pub(super) fn count_plain(&mut self, window: &v1::Counters) {
                $(self.$tcp = window.$tcp;)*
                if let Some(http) = &window.http {
                    $(self.$http = http.$http;)*
                }
                self.later = LaterCounters::of(window);
            }

            /// Each counter with that of another bucket.
            pub(super) fn zip_plain<'a>(
                &'a mut self,
                other: &Self,
            ) -> impl Iterator<Item = (&'a mut u64, u64)> {
                let counters = [
                    $((&mut self.$tcp, other.$tcp),)*
                    $((&mut self.$http, other.$http),)*
                ];
                counters.into_iter()
            }
        }

        /// The sums that roll-ups hold since a later version than the rest.
        #[derive(Clone, Copy, PartialEq, prost::Message)]
        pub struct LaterCounters {
            $(#[prost(uint64, optional, tag = $later_tcp_tag)] pub $later_tcp: Option<u64>,)*
            $(#[prost(uint64, optional, tag = $later_http_tag)] pub $later_http: Option<u64>,)*
        }

        impl LaterCounters {
            /// Those of one window.
            fn of(window: &v1::Counters) -> Self {
                let http = window.http.as_ref();
                Self {
                    $($later_tcp: Option::from(window.$later_tcp),)*
                    $($later_http: http.map_or(Some(0), |http| Option::from(http.$later_http)),)*
                }
            }

            pub(super) fn add(&mut self, other: &Self) {
                $(self.$later_tcp = sum(self.$later_tcp, other.$later_tcp);)*
                $(self.$later_http = sum(self.$later_http, other.$later_http);)*
            }
        }

        /// The counters of roll-ups that are counters of reports.
        pub const ROLLED_COUNTERS: &[RolledCounter] = &[
            $(endpoint_roll!(@first $tcp $tcp_seen),)*
            $(endpoint_roll!(@first $http $http_seen),)*
            $(endpoint_roll!(@later $later_tcp $later_tcp_seen),)*
            $(endpoint_roll!(@later $later_http $later_http_seen),)*
        ];
    };
    (@first $field:ident $seen:ident) => {
        RolledCounter {
            name: stringify!($field),
            seen: Seen::$seen,
            read: |roll| Some(roll.$field),
            place: |roll| &mut roll.$field,
        }
    };
    (@later $field:ident $seen:ident) => {
        RolledCounter {
            name: stringify!($field),
            seen: Seen::$seen,
            read: |roll| roll.later.$field,
            place: |roll| roll.later.$field.get_or_insert_default(),
        }
    };
}

rolled_counters!(endpoint_roll);

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.zip(other).map(|(one, other)| one.saturating_add(other))
}
