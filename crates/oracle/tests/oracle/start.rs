//! Starting, restarting, refusing to start; backup and restore.

use crate::lab::*;
use std::os::unix::fs::PermissionsExt;
use weft_api::{Client, ClientError, Code, Context};
use weft_model::Epoch;
use weft_oracle::{Oracle, OracleError, backup, restore};

async fn refused(options: weft_oracle::OracleOptions) -> String {
    let Err(error) = Oracle::start(options).await else { panic!("it started") };
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn a_restart_keeps_everything() {
    in_namespace(async || {
        let f = Fabric::with(2, |_| ()).await;
        f.vn("red", &["10.0.0.0/24", "fd00::/64"]).await;
        let nve = f.join(1).await;
        nve.grant("red", "gone").await.unwrap();
        nve.client.release(&name("red"), &name("gone"), false).await.unwrap();
        let grant = nve.grant("red", "web1").await.unwrap().grant;
        let (vns, grants) = (f.operator.vns().await.unwrap(), f.operator.grants().await.unwrap());
        let f = f.restart().await;
        assert_eq!((f.operator.vns().await.unwrap(), f.operator.grants().await.unwrap()), (vns, grants));
        // The NVE's certificate is still good, and so are its connections after they broke.
        assert_eq!(nve.grant("red", "web1").await.unwrap().grant, grant);
        let next = nve.grant("red", "web2").await.unwrap().grant;
        assert_eq!(next.epoch, Epoch::FIRST.next(), "the epoch floor is kept");
        assert!(grant.ips.is_disjoint(&next.ips));
        // Which hosts are there is not known yet: what one may have in service is not freed under it.
        let (code, _, text) = refusal(f.operator.release(&name("red"), &name("web2"), false).await);
        assert!(
            code == Code::NotReady && text.contains("has not been heard since the Oracle started"),
            "{text}"
        );
        let mappings = f.operator.mappings(None).await.unwrap().items;
        assert_eq!(mappings.len(), 6, "answered from grants at once");
        let mode = |file: &str| std::fs::metadata(f.data().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("operator.json"), mode("ca.key"), mode("oracle.redb")), (0o600, 0o600, 0o600));
    });
}

#[test]
fn it_says_why_it_cannot_start() {
    in_namespace(async || {
        let mut f = Fabric::start().await;
        let text = refused(options(&f.data(), 1)).await;
        assert!(text.contains("in use by another Oracle"), "{text}");
        let other = tempfile::tempdir().unwrap();
        let text = refused(options(other.path(), 1)).await;
        assert!(text.contains("0.0.0.0:4342") && text.contains("in use"), "{text}");
        let mut foreign = options(&other.path().join("x"), 1);
        foreign.listen = vec!["198.51.100.1".parse().unwrap()];
        assert!(refused(foreign).await.contains("198.51.100.1"));
        let file = other.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(refused(options(&file, 1)).await.contains("--data-dir"));
        assert!(refused(options("/proc/nothing".as_ref(), 1)).await.contains("/proc/nothing"));
        f.stop().await;
        std::fs::remove_file(f.data().join("ca.key")).unwrap();
        assert!(refused(options(&f.data(), 1)).await.contains("ca.key is missing"));
    });
}

#[test]
fn backup_while_running_and_restore() {
    in_namespace(async || {
        let mut f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/24"]).await;
        let nve = f.join(1).await;
        let rules = serde_json::from_str(r#"{"rules":[{"toward":"in"}]}"#).unwrap();
        let group = f.operator.put_group(&name("red"), &name("web"), &rules).await.unwrap();
        nve.grant("red", "web1").await.unwrap();
        let in_web = [name("web")].into();
        let kept = f.operator.set_groups(&name("red"), &name("web1"), in_web).await.unwrap().grant;
        let saved = f.operator.backup().await.unwrap();
        let lost = nve.grant("red", "web2").await.unwrap().grant;
        let file = f.data().join("saved");
        assert!(matches!(backup(&f.data(), &file), Err(OracleError::Store(_))), "it is running");
        std::fs::write(&file, &saved).unwrap();
        assert!(matches!(restore(&file, &f.data()), Err(OracleError::NotEmpty(_))));
        let version = f.operator.vns().await.unwrap().resource_version;
        f.stop().await;
        backup(&f.data(), &f.data().join("cold")).unwrap();
        let mode = std::fs::metadata(f.data().join("cold")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new");
        let cut = f.data().join("cut");
        std::fs::write(&cut, &saved[..saved.len() - 9]).unwrap();
        assert!(matches!(restore(&cut, &data), Err(OracleError::Backup { .. })));
        assert!(!data.exists(), "a bad backup leaves nothing");
        restore(&file, &data).unwrap();

        let oracle = Oracle::start(options(&data, 1)).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(oracle.run(async { drop(stopped.await) }));
        // The same CA: the NVE and the old operator are still known.
        assert_eq!(nve.grant("red", "web1").await.unwrap().grant, kept);
        let context = Context::load(&f.data().join("operator.json")).unwrap();
        let operator = Client::new(&context.endpoint().unwrap()).unwrap();
        assert_eq!(operator.grants().await.unwrap().items.len(), 1);
        assert_eq!(operator.group(&name("red"), &name("web")).await.unwrap(), group);
        let again = nve.grant("red", "web2").await.unwrap().grant;
        assert!(again.epoch > lost.epoch, "an epoch is never used twice");
        let stale = operator.watch_vns(version).await;
        assert!(matches!(stale, Err(ClientError::Api(e)) if e.status == 410), "history was lost");
        drop(stop);
        task.await.unwrap().unwrap();
    });
}

#[test]
fn a_ca_without_its_store_is_no_first_start() {
    in_namespace(async || {
        let mut f = Fabric::start().await;
        f.vn("red", &["10.0.0.0/24"]).await;
        f.stop().await;
        let store = f.data().join("oracle.redb");
        let kept = std::fs::read(&store).unwrap();
        // As a restore that was cut short leaves it, and as a full disk may leave it.
        for left in [None, Some(&[][..])] {
            std::fs::remove_file(&store).unwrap();
            if let Some(left) = left {
                std::fs::write(&store, left).unwrap();
            }
            let text = refused(options(&f.data(), 1)).await;
            assert!(text.contains("oracle.redb is missing") && text.contains("restore a backup"), "{text}");
            assert_eq!(std::fs::read(&store).ok().as_deref(), left, "nothing was made in its place");
            std::fs::write(&store, &kept).unwrap();
        }
        let f = f.start_again().await;
        assert_eq!(f.operator.vns().await.unwrap().items.len(), 1);
    });
}

#[test]
fn secrets_for_a_protocol_analyser_only_on_request() {
    in_namespace(async || {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("keys");
        let f = Fabric::with(1, |o| o.tls_key_log = Some(log.clone())).await;
        f.operator.vns().await.unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.lines().any(|l| l.starts_with("SERVER_TRAFFIC_SECRET_0 ")), "{text}");
        assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    });
}
