//! Tokens, joining, renewal, removal, roles.

use crate::lab::*;
use weft_api::{
    Client, ClientError, Code, Context, Endpoint, Identity, JoinToken, NewToken, RenewRequest, Role, Server,
    Trust, local::Items,
};

#[test]
fn a_token_is_good_once_and_its_answer_can_be_had_again() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let made = f.operator.create_token(&NewToken::default()).await.unwrap();
        let (_, csr) = request();
        let (endpoint, join) = join_request(&made.token, 1, &csr);
        let stranger = Client::new(&endpoint).unwrap();

        let mut wrong = join.clone();
        wrong.secret = "00".repeat(20);
        assert_eq!(refusal(stranger.join(&wrong).await).0, Code::TokenUnknown);
        let mut wrong = join.clone();
        wrong.csr = "rubbish".into();
        assert_eq!(refusal(stranger.join(&wrong).await).0, Code::BadRequest);
        let mut wrong = join.clone();
        wrong.rlocs.clear();
        assert_eq!(refusal(stranger.join(&wrong).await).0, Code::BadRequest);

        let first = stranger.join(&join).await.unwrap();
        assert_eq!(stranger.join(&join).await.unwrap(), first, "the same request, the same answer");
        let mut other = join.clone();
        other.csr = request().1;
        assert_eq!(refusal(stranger.join(&other).await).0, Code::TokenUsed);

        let made = f.operator.create_token(&NewToken { uses: 3, ..NewToken::default() }).await.unwrap();
        let token: JoinToken = made.token.parse().unwrap();
        other.secret = token.secret;
        assert_eq!(refusal(stranger.join(&other).await).0, Code::NveTaken);
        other.name = name("host2");
        assert_eq!(refusal(stranger.join(&other).await).0, Code::RlocTaken);
        other.rlocs = rlocs(2);
        stranger.join(&other).await.unwrap();
        let Items { items } = f.operator.tokens().await.unwrap();
        assert!(items.iter().any(|t| t.id == made.id && t.uses_left == 2));

        // An expired one: the shortest there is.
        let made = f.operator.create_token(&NewToken { ttl_s: 1, ..NewToken::default() }).await.unwrap();
        let token: JoinToken = made.token.parse().unwrap();
        let mut late = join.clone();
        late.secret = token.secret;
        until("the token expires", async || {
            let (code, ..) = refusal(stranger.join(&late).await);
            (code == Code::TokenExpired).then_some(())
        })
        .await;
        let nves = f.operator.nves().await.unwrap().items;
        assert_eq!(nves.len(), 2);
        assert_eq!(nves[0].connected, Some(false));
    });
}

#[test]
fn the_ca_is_pinned_before_the_secret_is_sent() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let made = f.operator.create_token(&NewToken::default()).await.unwrap();
        let mut token: JoinToken = made.token.parse().unwrap();
        token.ca = "ab".repeat(32);
        let Err(error) = Nve::join(&token.to_string(), 1).await else { panic!("joined a stranger") };
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
        Nve::join(&made.token, 1).await.unwrap();

        // Another fabric's CA is as good as none.
        let g = tempfile::tempdir().unwrap();
        let other = weft_oracle::pki::Ca::open(g.path(), 1_800_000_000).unwrap();
        let context = Context::load(&f.data().join("operator.json")).unwrap();
        let endpoint = Endpoint { trust: Trust::Ca(other.pem().into()), ..context.endpoint().unwrap() };
        assert!(Client::new(&endpoint).unwrap().version().await.is_err());
        let theirs = other.credentials(&Role::Operator("x".into()), 1_800_000_000, 1 << 30).unwrap();
        let identity = Identity { certificate: theirs.certificate, key: theirs.key };
        let endpoint = Endpoint { identity: Some(identity), ..context.endpoint().unwrap() };
        assert!(Client::new(&endpoint).unwrap().vns().await.is_err());
    });
}

#[test]
fn renewal_gives_the_same_nve_a_new_certificate() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let nve = f.join(1).await;
        let (key, csr) = request();
        let renewed = nve.client.renew(&RenewRequest { csr: csr.clone() }).await.unwrap();
        assert_ne!(renewed.certificate, nve.identity.certificate);
        let client = Client::new(&Endpoint {
            servers: nve.reply.api.iter().map(|a| a.parse().unwrap()).collect(),
            trust: Trust::Ca(nve.reply.ca.clone()),
            identity: Some(Identity { certificate: renewed.certificate, key: key.serialize_pem() }),
        })
        .unwrap();
        f.vn("red", &["10.0.0.0/24"]).await;
        let grant = client.grant(&wish("red", "web1", &[])).await.unwrap().grant;
        assert_eq!(grant.owner, nve.id);
        assert_eq!(refusal(nve.client.renew(&RenewRequest { csr: "x".into() }).await).0, Code::BadRequest);
        assert_eq!(refusal(f.operator.renew(&RenewRequest { csr }).await).0, Code::Forbidden);
    });
}

#[test]
fn a_removed_nve_is_refused_at_once() {
    in_namespace(async || {
        let f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let nve = f.join(1).await;
        nve.grant("red", "web1").await.unwrap();
        let mut watch =
            nve.client.watch_grants(nve.client.grants().await.unwrap().resource_version).await.unwrap();
        let said = f.operator.remove_nve(&nve.name, false).await.unwrap().message;
        assert!(said.contains("1 tenant systems stay granted"), "{said}");
        let (code, status, _) = refusal(nve.grant("red", "web2").await);
        assert_eq!((code, status), (Code::Revoked, 403));
        while let Some(event) = watch.next().await {
            event.unwrap();
        }
        assert_eq!(refusal(f.operator.remove_nve(&nve.name, false).await).0, Code::NotFound);
        // The host comes back as another NVE; what it held is released on purpose.
        let again = f.join(1).await;
        assert_ne!(again.id, nve.id);
        assert_eq!(refusal(again.grant("red", "web1").await).0, Code::GrantedElsewhere);
        f.operator.release(&name("red"), &name("web1"), true).await.unwrap();
        assert_eq!(again.grant("red", "web1").await.unwrap().grant.epoch.get(), 2);
        f.operator.remove_nve(&again.name, true).await.unwrap();
        f.operator.delete_vn(&name("red")).await.unwrap();
    });
}

#[test]
fn viewers_see_and_nves_see_their_own() {
    in_namespace(async || {
        let f = Fabric::start().await;
        let (one, two) = (f.join(1).await, f.join(2).await);
        f.vn("red", &["10.0.0.0/24"]).await;
        f.vn("blue", &["10.0.0.0/24"]).await;
        one.grant("red", "web1").await.unwrap();
        two.grant("blue", "db1").await.unwrap();

        let context = weft_oracle::credentials(&f.data(), &Role::Viewer("page".into()), Some(60)).unwrap();
        let viewer = Client::new(&context.endpoint().unwrap()).unwrap();
        assert_eq!(viewer.vns().await.unwrap().items.len(), 2);
        assert_eq!(viewer.grants().await.unwrap().items.len(), 2);
        assert_eq!(viewer.tsis(None).await.unwrap().items.len(), 2);
        assert_eq!(viewer.mappings(Some(&name("red"))).await.unwrap().items.len(), 2);
        viewer.counters().await.unwrap();
        for refused in [
            refusal(viewer.create_vn(&new_vn("x", None, &[])).await),
            refusal(viewer.create_token(&NewToken::default()).await),
            refusal(viewer.release(&name("red"), &name("web1"), true).await),
            refusal(viewer.grant(&wish("red", "x", &[])).await),
            refusal(viewer.backup().await),
            refusal(one.client.create_vn(&new_vn("x", None, &[])).await),
            refusal(one.client.create_token(&NewToken::default()).await),
            refusal(one.client.mappings(None).await),
            refusal(one.client.remove_nve(&two.name, true).await),
        ] {
            assert_eq!((refused.0, refused.1), (Code::Forbidden, 403));
        }

        let seen: Vec<_> = one.client.vns().await.unwrap().items.into_iter().map(|vn| vn.name).collect();
        assert_eq!(seen, [name("red")]);
        assert_eq!(refusal(one.client.vn(&name("blue")).await).0, Code::NotFound);
        one.client.vn(&name("red")).await.unwrap();
        let grants = one.client.grants().await.unwrap().items;
        assert_eq!((grants.len(), &grants[0].nve), (1, &one.name));
        let nves = one.client.nves().await.unwrap().items;
        assert_eq!((nves.len(), nves[0].connected), (2, None));
        assert_eq!(
            refusal(one.client.release(&name("blue"), &name("db1"), true).await).0,
            Code::GrantedElsewhere
        );
        let mut for_other = wish("red", "x", &[]);
        for_other.nve = Some(two.name.clone());
        assert_eq!(refusal(one.client.grant(&for_other).await).0, Code::Forbidden);

        // Without a certificate: who answers, and nothing else.
        let nobody = Endpoint {
            servers: context.oracles.iter().map(|o| o.parse::<Server>().unwrap()).collect(),
            trust: Trust::Ca(context.ca.clone()),
            identity: None,
        };
        let nobody = Client::new(&nobody).unwrap();
        let version = nobody.version().await.unwrap();
        assert_eq!((version.oracle.as_str(), version.ready), ("oracle1", true));
        assert_eq!(refusal(nobody.vns().await).1, 401);
        assert_eq!(refusal(nobody.grant(&wish("red", "x", &[])).await).1, 401);
    });
}
