//! Test inputs.
