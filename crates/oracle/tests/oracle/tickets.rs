//! Tickets: an Oracle's signed word that a tenant system moves from one NVE to another (requirement V2).

use crate::lab::*;
use std::time::{SystemTime, UNIX_EPOCH};
use weft_api::{Code, SignedTicket, Ticket, TraceTicket};

#[test]
#[allow(clippy::disallowed_methods, reason = "tickets are dated by the calendar")]
fn v2_who_is_next_is_given_a_ticket_and_nobody_else() {
    in_namespace(async || {
        let f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/24", "fd00::/64"]).await;
        let (old, new, other) = (f.join(1).await, f.join(2).await, f.join(3).await);
        old.grant("red", "web1").await.unwrap();
        let (red, web1) = (name("red"), name("web1"));
        for nve in [&old, &new, &other] {
            let (code, status, text) = refusal(nve.client.ticket(&red, &web1).await);
            assert_eq!((code, status), (Code::GrantedElsewhere, 409), "it does not move");
            assert!(text.contains("host1") && text.contains("weft tsi move"), "{text}");
        }
        let moving = old.client.name_next(&red, &web1, new.name.clone()).await.unwrap();
        for nve in [&old, &other] {
            assert_eq!(refusal(nve.client.ticket(&red, &web1).await).0, Code::GrantedElsewhere);
        }
        assert_eq!(refusal(f.operator.ticket(&red, &web1).await).0, Code::Forbidden);
        assert_eq!(refusal(new.client.ticket(&red, &name("web9")).await).0, Code::NotFound);
        assert_eq!(refusal(new.client.ticket(&name("blue"), &web1).await).0, Code::NotFound);

        let reply = new.client.ticket(&red, &web1).await.unwrap();
        assert_eq!((reply.from, &reply.rlocs), (old.id, &rlocs(1)));
        let signed: SignedTicket = reply.ticket.parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let Ticket { tsi, from, to, epoch, expires_at, id } = signed.ticket().unwrap();
        assert_eq!((&tsi, from, to), (&moving.grant.tsi, old.id, new.id));
        assert_eq!((epoch, reply.epoch), (moving.grant.next.unwrap().epoch, epoch));
        assert!((now..=now + Ticket::TTL_S).contains(&expires_at), "{expires_at}");
        let again: SignedTicket = new.client.ticket(&red, &web1).await.unwrap().ticket.parse().unwrap();
        assert_ne!(again.ticket().unwrap().id, id, "each counts once");
        // The move is called off.
        old.client.call_off(&red, &web1).await.unwrap();
        assert_eq!(refusal(new.client.ticket(&red, &web1).await).0, Code::GrantedElsewhere);
    });
}

/// The NVE that has a tenant system is given the Oracle's word for a trace from it, to any NVE; and nobody else.
#[test]
fn who_has_a_tenant_system_may_trace_its_packets() {
    in_namespace(async || {
        let f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/24", "fd00::/64"]).await;
        let (has, other) = (f.join(1).await, f.join(2).await);
        let granted = has.grant("red", "web1").await.unwrap();
        let (red, web1) = (name("red"), name("web1"));
        let to = other.name.clone();
        let (code, status, text) = refusal(other.client.trace_ticket(&red, &web1, to.clone(), None).await);
        assert_eq!((code, status), (Code::GrantedElsewhere, 409));
        assert!(text.contains("host1"), "{text}");
        assert_eq!(refusal(f.operator.trace_ticket(&red, &web1, to.clone(), None).await).0, Code::Forbidden);
        for (vn, tsi, nve) in [("red", "web9", "host2"), ("blue", "web1", "host2"), ("red", "web1", "host9")]
        {
            let refused = refusal(has.client.trace_ticket(&name(vn), &name(tsi), name(nve), None).await);
            assert_eq!(refused.0, Code::NotFound, "{vn} {tsi} {nve}");
        }
        let reply = has.client.trace_ticket(&red, &web1, to.clone(), None).await.unwrap();
        let signed: SignedTicket = reply.ticket.parse().unwrap();
        assert!(signed.ticket().is_err(), "it is not for what goes along with a move");
        let TraceTicket { tsi, asks, told, trace, id, .. } = signed.trace().unwrap();
        assert_eq!((&tsi, asks, told), (&granted.grant.tsi, has.id, other.id));
        assert_eq!(trace, reply.trace);
        assert!((1..=0xff_ffff).contains(&trace), "{trace}");
        // Of the same packet, for another NVE on its way.
        let again = has.client.trace_ticket(&red, &web1, to.clone(), Some(trace)).await.unwrap();
        let signed = again.ticket.parse::<SignedTicket>().unwrap().trace().unwrap();
        assert_eq!((signed.trace, again.trace), (trace, trace));
        assert_ne!(signed.id, id, "each counts once");
        for none in [0, 1 << 24] {
            let (code, _, text) = refusal(has.client.trace_ticket(&red, &web1, to.clone(), Some(none)).await);
            assert!(code == Code::BadRequest && text.contains(&format!("{none} is no trace's id")), "{text}");
        }
    });
}
