//! monitor-proto.
