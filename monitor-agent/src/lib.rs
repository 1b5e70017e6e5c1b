//! monitor-agent.
