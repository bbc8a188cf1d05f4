//! A whole Oracle on real sockets, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and what they share")]

mod api;
mod groups;
mod join;
mod lab;
mod openapi;
mod pubsub;
mod session;
mod start;
mod tickets;
mod watch;
mod xtr;
