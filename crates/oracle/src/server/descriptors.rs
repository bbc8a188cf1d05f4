//! File descriptors: each connection takes one, and the usual soft limit is 1024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What an NVE takes: its session, its watches, its requests.
const PER_NVE: u64 = 4;
/// What the Oracle takes for itself: store, sockets, log.
const OWN: u64 = 128;

/// Raises the soft limit to the hard one and says when fewer than `wanted` connections fit.
///
/// A soft limit that cannot be raised is no reason not to start.
pub(super) fn raise(wanted: usize) {
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(e) => {
                tracing::warn!(soft, hard, error = %e, "cannot raise the limit of file descriptors");
                soft
            }
        },
        Ok((soft, _)) => soft,
        Err(e) => {
            tracing::warn!(error = %e, "cannot read the limit of file descriptors");
            return;
        }
    };
    let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(OWN);
    if limit < wanted {
        let nves = limit.saturating_sub(OWN) / PER_NVE;
        tracing::warn!(
            limit,
            wanted,
            "file descriptors are enough for about {nves} NVEs; raise LimitNOFILE or `ulimit -Hn`"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(512), hard).unwrap();
        raise(usize::MAX);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
