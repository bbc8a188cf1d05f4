//! The reliable transport.
