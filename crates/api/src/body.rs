//! Bodies of requests, as servers of the API read them.

use crate::Code;
use bytes::{Buf, BufMut as _, Bytes};
use core::fmt;
use http_body_util::BodyExt as _;
use hyper::body::Body;

/// Octets over the limit that are read all the same: who is cut off while it still writes does not read the refusal.
const PASSED_OVER: usize = 64 << 20;

/// Why a body is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It has more octets than this.
    #[error("the body is longer than {limit} octets; send less at once")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// It does not come to its end.
    #[error("the body cannot be read: {0}")]
    Broken(String),
}

impl BodyError {
    /// The code that it is refused with.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Broken(_) => Code::BadRequest,
        }
    }
}

/// The whole of a body, of which at most `limit` octets are kept.
///
/// # Errors
/// [`BodyError`].
pub async fn whole<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data: Buf, Error: fmt::Display>,
{
    let mut body = core::pin::pin!(body);
    let (mut octets, mut seen) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyError::Broken(e.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.remaining());
        if seen <= limit {
            octets.put(data);
            continue;
        }
        octets = Vec::new();
        if seen > limit.saturating_add(PASSED_OVER) {
            break;
        }
    }
    if seen > limit { Err(BodyError::TooLarge { limit }) } else { Ok(octets.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    fn read(chunks: &[usize], limit: usize) -> (Result<Bytes, BodyError>, usize) {
        let mut taken = 0;
        let body = chunks.iter().map(|length| {
            taken += length;
            Ok::<_, BodyError>(Frame::data(Bytes::from(vec![7; *length])))
        });
        let read = whole(StreamBody::new(stream::iter(body)), limit).now_or_never().unwrap();
        (read, taken)
    }

    #[test]
    fn what_fits_is_taken_and_what_does_not_is_read_to_its_end() {
        assert_eq!(read(&[], 3), (Ok(Bytes::new()), 0));
        assert_eq!(read(&[1, 2], 3), (Ok(Bytes::from_static(&[7; 3])), 3));
        let refused = || Err(BodyError::TooLarge { limit: 3 });
        assert_eq!(read(&[1, 3, 5, 1], 3), (refused(), 10));
        // Not for ever.
        let (result, taken) = read(&[16 << 20; 9], 3);
        assert_eq!((result, taken), (refused(), 80 << 20));
    }

    #[test]
    fn one_that_breaks_off_is_refused() {
        let broken = BodyError::Broken("gone".to_owned());
        let body = [Ok(Frame::data(Bytes::from_static(b"{"))), Err(broken.to_string())];
        let read = whole(StreamBody::new(stream::iter(body)), 9).now_or_never().unwrap();
        assert!(matches!(read, Err(BodyError::Broken(_))), "{read:?}");
    }
}
