//! The core against its intended tables and a scripted Oracle.
