//! collector.
