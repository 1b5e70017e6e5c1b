//! monitor-common.
