//! Raw frames for tests: built here, sent and received by packet sockets.
