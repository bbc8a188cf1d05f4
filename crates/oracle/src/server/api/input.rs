//! Bodies, paths and queries, refused in our own words.

use super::Failure;
use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use weft_api::whole;
use weft_model::{Epoch, Name};

/// A JSON body of at most `LIMIT` octets.
pub(super) struct Body<T, const LIMIT: usize = { super::BODY }>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync, const LIMIT: usize> FromRequest<S> for Body<T, LIMIT> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let read = whole(request.into_body(), LIMIT).await;
        let octets = read.map_err(|e| Failure::new(e.code(), e.to_string()))?;
        match serde_json::from_slice(&octets) {
            Ok(value) => Ok(Self(value)),
            Err(e) => Err(Failure::bad(format!("the body is not what is expected here: {e}"))),
        }
    }
}

/// Names in the path.
pub(super) struct Names<const N: usize>(pub(super) [Name; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for Names<N> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(all): Path<Vec<(String, String)>> =
            Path::from_request_parts(parts, state).await.map_err(|e| Failure::bad(e.to_string()))?;
        let names: Result<Vec<Name>, _> = all.into_iter().map(|(_, text)| Name::new(text)).collect();
        let names = names.map_err(|e| Failure::bad(e.to_string()))?;
        names.try_into().map(Self).map_err(|_| Failure::no_route())
    }
}

/// The query; an unknown word in it is refused, for it would be a misspelt one.
pub(super) struct Query {
    words: BTreeMap<String, String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let mut words = BTreeMap::new();
        for pair in parts.uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            let (word, value) = pair.split_once('=').unwrap_or((pair, ""));
            if words.insert(word.to_owned(), value.to_owned()).is_some() {
                return Err(Failure::bad(format!("'{word}' stands twice in the query")));
            }
        }
        Ok(Self { words })
    }
}

impl Query {
    /// Refuses words other than `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Failure> {
        match self.words.keys().find(|word| !known.contains(&word.as_str())) {
            None => Ok(()),
            Some(word) if known.is_empty() => {
                Err(Failure::bad(format!("'{word}' in the query means nothing here; leave it out")))
            }
            Some(word) => Err(Failure::bad(format!(
                "'{word}' in the query means nothing here; known are {}",
                known.join(", ")
            ))),
        }
    }

    pub(super) fn flag(&self, word: &str) -> Result<bool, Failure> {
        match self.words.get(word).map(String::as_str) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(Failure::bad(format!("'{word}={other}': write true or false"))),
        }
    }

    pub(super) fn number(&self, word: &str) -> Result<Option<u64>, Failure> {
        self.words
            .get(word)
            .map(|text| text.parse().map_err(|_| Failure::bad(format!("'{word}={text}': write a number"))))
            .transpose()
    }

    pub(super) fn epoch(&self, word: &str) -> Result<Option<Epoch>, Failure> {
        let bad =
            |text: &String| Failure::bad(format!("'{word}={text}': write an epoch, a number from 1 on"));
        let epoch = |text: &str| text.parse().ok().and_then(Epoch::new);
        self.words.get(word).map(|text| epoch(text).ok_or_else(|| bad(text))).transpose()
    }

    pub(super) fn name(&self, word: &str) -> Result<Option<Name>, Failure> {
        let name = self.words.get(word).map(|text| Name::new(text.as_str()));
        name.transpose().map_err(|e| Failure::bad(format!("'{word}': {e}")))
    }
}
