//! A stream of events, one JSON object a line, for as long as the connection lasts.

use super::{ClientError, transport::Answer};
use crate::Event;
use bytes::{Buf, Bytes, BytesMut};
use core::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use futures_util::{Stream, StreamExt};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming},
    client::conn::http1::SendRequest,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, Sleep, sleep};

/// The server sends a bookmark at least every 10 s; this long without anything means it is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest event, octets.
const LINE_LIMIT: usize = 1 << 22;

/// The events of a watch. After an error or its end, watch again from the last
/// event's `resource_version`; if that is refused with [`crate::Code::Gone`], list again.
pub type Watch<T> = Lines<Event<T>>;

/// What comes line by line, a [`Stream`].
pub struct Lines<T> {
    address: String,
    body: Incoming,
    /// Keeps the connection open.
    _sender: SendRequest<Full<Bytes>>,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
    silence: Pin<Box<Sleep>>,
    over: bool,
    object: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(answer: Answer) -> Self {
        let (address, body, sender) = answer.into_parts();
        Self {
            address,
            body,
            _sender: sender,
            buffer: BytesMut::new(),
            searched: 0,
            silence: Box::pin(sleep(SILENCE)),
            over: false,
            object: PhantomData,
        }
    }

    /// The next event; none when the server ended the stream.
    ///
    /// # Errors
    /// [`ClientError::Broken`], [`ClientError::Timeout`] or [`ClientError::Answer`]; the stream is
    /// over then.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        StreamExt::next(self).await
    }

    fn line(&mut self) -> Option<Result<T, ClientError>> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(at) = fresh.iter().position(|b| *b == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + at);
            self.buffer.advance(1);
            self.searched = 0;
            if line.is_empty() {
                continue;
            }
            return Some(serde_json::from_slice(&line).map_err(|e| self.answer(e.to_string())));
        }
    }

    fn answer(&mut self, reason: String) -> ClientError {
        self.over = true;
        ClientError::Answer { address: self.address.clone(), reason }
    }
}

impl<T: DeserializeOwned> Stream for Lines<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.over {
                return Poll::Ready(None);
            }
            if let Some(event) = this.line() {
                return Poll::Ready(Some(event));
            }
            if this.buffer.len() > LINE_LIMIT {
                return Poll::Ready(Some(Err(this.answer("an event longer than 4 MiB".to_owned()))));
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        this.buffer.extend_from_slice(&data);
                    }
                    this.silence.as_mut().reset(Instant::now() + SILENCE);
                }
                Poll::Ready(Some(Err(e))) => {
                    this.over = true;
                    let address = this.address.clone();
                    return Poll::Ready(Some(Err(ClientError::Broken { address, reason: e.to_string() })));
                }
                Poll::Ready(None) => {
                    this.over = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(this.silence.as_mut().poll(cx));
                    this.over = true;
                    let address = this.address.clone();
                    return Poll::Ready(Some(Err(ClientError::Timeout { address, after: SILENCE })));
                }
            }
        }
    }
}
