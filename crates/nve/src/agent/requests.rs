//! Requests that carry an id (requirement H8): the same one again is answered as it was the first time and has no second
//! effect; another one under its id is refused.
//!
//! Only what was done is kept, in the order in which it was, with what the agent keeps on disk: what was refused has
//! changed nothing and may be tried again. A client that has gone away changes nothing of that.

use super::driver::LocalCall;
use super::local::{Local, Refusal};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    sync::Arc,
};
use weft_api::local::RequestId;

/// Requests kept,
const KEPT: usize = 1_024;
/// and octets of what was asked and answered.
const OCTETS: usize = 1 << 20;
/// Requests under way.
const UNDER_WAY: usize = 1_024;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// For people: `attach red/web1`.
    pub(super) what: String,
    /// All of it, but for its id.
    pub(super) content: String,
}

impl Asked {
    /// In which words two differ that ask for the same of the same interface.
    fn differences(&self, other: &Self) -> (String, String) {
        let words = |asked: &Self| {
            let rest = asked.content.strip_prefix(&asked.what).unwrap_or_default();
            serde_json::from_str::<serde_json::Map<String, Value>>(rest).unwrap_or_default()
        };
        let (here, there) = (words(self), words(other));
        let differ = |name: &&String| here.get(*name) != there.get(*name);
        let names: BTreeSet<&String> = here.keys().chain(there.keys()).filter(differ).collect();
        let told = |words: &serde_json::Map<String, Value>| {
            let word = |name: &&String| match words.get(*name) {
                Some(value) => format!("{name} {value}"),
                None => format!("no {name}"),
            };
            let told: Vec<String> = names.iter().map(word).collect();
            if told.is_empty() { String::new() } else { format!(" with {}", told.join(", ")) }
        };
        (told(&here), told(&there))
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: serde_json::Value,
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    id: RequestId,
    asked: Asked,
    answer: Answer,
}

impl Done {
    fn octets(&self) -> usize {
        let body = serde_json::to_vec(&self.answer.body).map_or(0, |body| body.len());
        self.id.as_str().len() + self.asked.what.len() + self.asked.content.len() + body
    }
}

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It is new: carry it out and say how that ended.
    New,
    /// It was carried out: this was the answer.
    Before(Answer),
    /// It is being carried out.
    UnderWay,
    /// Its id is another's, for which this was asked.
    Taken(Asked),
    /// So many are under way.
    TooMany(usize),
}

/// Those that are to outlive the agent, the oldest first: as cheap to hand on as it is often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept(Arc<Vec<Done>>);

impl Kept {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|done| Self(Arc::new(done)))
    }
}

/// The requests that are known.
pub(super) struct Requests {
    done: BTreeMap<RequestId, Done>,
    /// The oldest first.
    order: VecDeque<RequestId>,
    octets: usize,
    under_way: BTreeMap<RequestId, Asked>,
    saved: Kept,
    kept: (usize, usize),
}

impl Requests {
    /// Those that an earlier run kept.
    pub(super) fn restore(saved: Kept) -> Self {
        Self::bounded(saved, (KEPT, OCTETS))
    }

    fn bounded(saved: Kept, kept: (usize, usize)) -> Self {
        let (under_way, order) = (BTreeMap::new(), VecDeque::new());
        let done = saved.0.as_ref().clone();
        let mut requests = Self { done: BTreeMap::new(), order, octets: 0, under_way, saved, kept };
        done.into_iter().for_each(|done| requests.keep(done));
        requests
    }

    /// Those that are to outlive the agent.
    pub(super) fn saved(&self) -> Kept {
        self.saved.clone()
    }

    /// A request has come.
    pub(super) fn begin(&mut self, id: RequestId, asked: Asked) -> Begun {
        if let Some(done) = self.done.get(&id) {
            return match done.asked.content == asked.content {
                true => Begun::Before(done.answer.clone()),
                false => Begun::Taken(done.asked.clone()),
            };
        }
        match self.under_way.get(&id) {
            Some(other) if other.content == asked.content => Begun::UnderWay,
            Some(other) => Begun::Taken(other.clone()),
            None if self.under_way.len() >= UNDER_WAY => Begun::TooMany(UNDER_WAY),
            None => {
                self.under_way.insert(id, asked);
                Begun::New
            }
        }
    }

    /// A request that was new has ended: with this answer, or refused. Whether there is more to keep now.
    pub(super) fn end(&mut self, id: RequestId, answer: Option<Answer>) -> bool {
        let (Some(asked), Some(answer)) = (self.under_way.remove(&id), answer) else { return false };
        self.keep(Done { id, asked, answer });
        let saved = self.order.iter().filter_map(|id| self.done.get(id)).cloned();
        self.saved = Kept(Arc::new(saved.collect()));
        true
    }

    fn keep(&mut self, done: Done) {
        if self.done.contains_key(&done.id) {
            return;
        }
        self.octets += done.octets();
        self.order.push_back(done.id.clone());
        self.done.insert(done.id.clone(), done);
        let (kept, octets) = self.kept;
        while self.done.len() > kept.max(1) || (self.octets > octets && self.done.len() > 1) {
            let Some(oldest) = self.order.pop_front().and_then(|id| self.done.remove(&id)) else { return };
            self.octets -= oldest.octets();
        }
    }
}

/// Carries a request out, once for an id. Apart from the connection, from its first step to its last: who has hung up
/// changes nothing of it, and may ask again what became of it.
pub(super) async fn once<T: Serialize + Send + 'static>(
    local: &Local,
    id: Option<RequestId>,
    asked: Asked,
    act: impl Future<Output = Result<(StatusCode, T), Refusal>> + Send + 'static,
) -> Result<Response, Refusal> {
    let local = local.clone();
    let task = tokio::spawn(async move {
        let Some(id) = id else {
            let (status, body) = act.await?;
            return Ok((status, Json(body)).into_response());
        };
        carry_out(&local, id, asked, act).await.map(response)
    });
    match task.await {
        Ok(done) => done,
        Err(error) => Err(Refusal::internal(error.to_string())),
    }
}

async fn carry_out<T: Serialize>(
    local: &Local,
    id: RequestId,
    asked: Asked,
    act: impl Future<Output = Result<(StatusCode, T), Refusal>>,
) -> Result<Answer, Refusal> {
    let now = asked.clone();
    match local.ask(|answer| LocalCall::Begin(id.clone(), asked, answer)).await? {
        Begun::New => {}
        Begun::Before(answer) => return Ok(answer),
        Begun::UnderWay => return Err(Refusal::request_busy(&id)),
        Begun::Taken(first) => return Err(Refusal::request_taken(&id, &first, &now)),
        Begun::TooMany(limit) => return Err(Refusal::requests(limit)),
    }
    let done = act.await.and_then(|(status, body)| {
        let body = serde_json::to_value(body).map_err(|e| Refusal::internal(e.to_string()))?;
        Ok(Answer { status: status.as_u16(), body })
    });
    let answer = done.as_ref().ok().cloned();
    local.tell(LocalCall::End(id, answer)).await;
    done
}

fn response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    (status, Json(answer.body)).into_response()
}

impl Refusal {
    fn request_busy(id: &RequestId) -> Self {
        Self::of(
            weft_api::Code::TooManyRequests,
            format!("request '{id}' is being carried out; try again when that has ended"),
        )
    }

    fn request_taken(id: &RequestId, first: &Asked, now: &Asked) -> Self {
        let (mut was, mut is) = (format!("'{}'", first.what), format!("'{}'", now.what));
        if first.what == now.what {
            let (first, now) = first.differences(now);
            was.push_str(&first);
            is = format!("that{now}");
        }
        let text = format!("request id '{id}' is that of {was}; use another for {is}");
        Self::of(weft_api::Code::RequestTaken, text)
    }

    fn requests(limit: usize) -> Self {
        let text = format!("{limit} requests are being carried out; try again when some have ended");
        Self::of(weft_api::Code::TooManyRequests, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> RequestId {
        RequestId::new(text).unwrap()
    }

    fn asked(text: &str) -> Asked {
        Asked { what: format!("do {text}"), content: text.to_owned() }
    }

    fn answer(n: u16) -> Answer {
        Answer { status: 200 + n, body: serde_json::json!({ "n": n }) }
    }

    fn carried_out(requests: &mut Requests, name: &str, content: &str, n: u16) {
        assert_eq!(requests.begin(id(name), asked(content)), Begun::New);
        assert!(requests.end(id(name), Some(answer(n))));
    }

    #[test]
    fn h8_the_same_is_answered_as_before_and_another_is_refused() {
        let mut requests = Requests::restore(Kept::default());
        assert_eq!(requests.begin(id("a"), asked("x")), Begun::New);
        assert_eq!(requests.begin(id("a"), asked("x")), Begun::UnderWay);
        assert_eq!(requests.begin(id("a"), asked("y")), Begun::Taken(asked("x")));
        assert!(requests.end(id("a"), Some(answer(1))));
        for _ in 0..2 {
            assert_eq!(requests.begin(id("a"), asked("x")), Begun::Before(answer(1)));
            assert_eq!(requests.begin(id("a"), asked("y")), Begun::Taken(asked("x")));
        }
        // And so it is after a restart.
        let mut requests = Requests::restore(requests.saved());
        assert_eq!(requests.begin(id("a"), asked("x")), Begun::Before(answer(1)));
        assert_eq!(requests.begin(id("a"), asked("y")), Begun::Taken(asked("x")));
    }

    #[test]
    fn h8_it_is_said_whose_an_id_is_and_what_differs() {
        let told = |first: (&str, Value), now: (&str, Value)| {
            let asked = |(what, rest): (&str, Value)| Asked {
                what: what.to_owned(),
                content: format!("{what} {rest}"),
            };
            Refusal::request_taken(&id("a"), &asked(first), &asked(now)).text().to_owned()
        };
        let at = |device: &str| serde_json::json!({ "device": device, "kind": "tap" });
        assert_eq!(
            told(("attach red/x", at("d")), ("detach red/x", at("d"))),
            "request id 'a' is that of 'attach red/x'; use another for 'detach red/x'"
        );
        let mut leased = at("e");
        leased["lease_s"] = 9.into();
        assert_eq!(
            told(("attach red/x", at("d")), ("attach red/x", leased)),
            "request id 'a' is that of 'attach red/x' with device \"d\", no lease_s; use another for that with device \"e\", lease_s 9"
        );
    }

    #[test]
    fn h8_what_was_refused_may_be_tried_again() {
        let mut requests = Requests::restore(Kept::default());
        assert_eq!(requests.begin(id("a"), asked("x")), Begun::New);
        assert!(!requests.end(id("a"), None));
        assert!(requests.saved().is_empty());
        carried_out(&mut requests, "a", "y", 2);
    }

    #[test]
    fn h8_the_oldest_are_forgotten() {
        let mut requests = Requests::bounded(Kept::default(), (2, 1 << 20));
        for (n, name) in (0..).zip(["a", "b", "c"]) {
            carried_out(&mut requests, name, name, n);
        }
        assert_eq!(requests.begin(id("b"), asked("b")), Begun::Before(answer(1)));
        assert_eq!(requests.begin(id("a"), asked("other")), Begun::New);
        let long = "x".repeat(100);
        let mut requests = Requests::bounded(Kept::default(), (100, 250));
        for name in ["a", "b", "c"] {
            carried_out(&mut requests, name, &long, 0);
        }
        assert_eq!(requests.saved().0.len(), 1, "two are too long");
        assert_eq!(requests.octets, requests.saved().0.iter().map(Done::octets).sum::<usize>());
        // One that is too long by itself is kept: it is the latest.
        carried_out(&mut requests, "d", &"x".repeat(1_000), 0);
        assert_eq!(requests.saved().0.len(), 1);
    }

    #[test]
    fn ids_are_short_and_need_no_escape() {
        for bad in ["", "a b", "ü", "a\n", "a&b", "a%20", &"a".repeat(129)] {
            assert!(RequestId::new(bad).is_err(), "{bad:?}");
        }
        for good in [&"a".repeat(128), "5f0c-8.b_~:"] {
            assert!(RequestId::new(good).is_ok());
        }
    }
}
