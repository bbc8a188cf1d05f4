//! What every store must do, run against each.

use super::*;
use crate::store::embedded::set_format;
use proptest::prelude::*;
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, sync::mpsc};

fn run(store: &dyn Store, body: impl FnMut(&mut dyn Transaction) -> Verdict + Send + 'static) -> Revision {
    let mut body = body;
    let (tx, rx) = mpsc::channel();
    store.submit(Box::new(move |t| Ok(body(t))), Box::new(move |end| tx.send(end).unwrap()));
    rx.recv().unwrap().unwrap()
}

fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    run(store, move |t| {
        t.put(key.clone(), value.clone());
        Verdict::Commit
    })
}

fn keys(tx: &dyn Transaction, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    tx.scan(prefix.as_bytes(), &mut |k, _| {
        found.push(String::from_utf8(k.to_vec()).unwrap());
        true
    })
    .unwrap();
    found
}

struct Quiet;

impl Observer for Quiet {
    fn committed(&mut self, _changes: &[std::sync::Arc<Change>]) {}
}

struct Tell(mpsc::Sender<Vec<std::sync::Arc<Change>>>);

impl Observer for Tell {
    fn committed(&mut self, changes: &[std::sync::Arc<Change>]) {
        self.0.send(changes.to_vec()).unwrap();
    }
}

fn conformance(store: &dyn Store) {
    // Revisions rise with changes only.
    assert_eq!(put(store, "a/1", "x"), 1);
    assert_eq!(put(store, "a/1", "x"), 1, "no change");
    assert_eq!(
        run(store, |t| {
            t.delete(b"none".to_vec());
            Verdict::Commit
        }),
        1
    );
    assert_eq!(
        run(store, |t| {
            t.put(b"a/1".to_vec(), vec![]);
            Verdict::Abort
        }),
        1
    );

    // A transaction sees its own writes merged with what was there, in order.
    let revision = run(store, |t| {
        t.put(b"a/2".to_vec(), b"y".to_vec());
        t.put(b"a/0".to_vec(), b"z".to_vec());
        t.put(b"b".to_vec(), b"z".to_vec());
        assert_eq!(keys(t, "a/"), ["a/0", "a/1", "a/2"]);
        t.delete(b"a/1".to_vec());
        assert_eq!(keys(t, "a/"), ["a/0", "a/2"]);
        assert_eq!(t.get(b"a/1").unwrap(), None);
        let mut first = None;
        t.scan(b"a/", &mut |k, _| {
            first = Some(k.to_vec());
            false
        })
        .unwrap();
        assert_eq!(first.as_deref(), Some(&b"a/0"[..]));
        Verdict::Commit
    });
    assert_eq!(revision, 2);

    // A snapshot stands still.
    let snapshot = store.snapshot().unwrap();
    assert_eq!(
        (snapshot.revision(), keys(&*snapshot, "")),
        (2, vec!["a/0".into(), "a/2".into(), "b".into()])
    );
    let revisions = store.history().revisions();
    put(store, "c", "1");
    assert!(revisions.has_changed().unwrap());
    assert_eq!((snapshot.revision(), snapshot.get(b"c").unwrap()), (2, None));

    // History: changes with what was before, whole transactions, observer first.
    let (changes, complete) = store.history().after(1, 100).unwrap();
    assert_eq!((changes.len(), complete), (5, 3));
    assert!(
        changes.iter().any(|c| c.key == b"a/1" && c.after.is_none() && c.before.as_deref() == Some(b"x"))
    );
    let (seen, told) = mpsc::channel();
    store.observe(Box::new(Tell(seen)));
    assert_eq!(put(store, "d", "1"), 4);
    assert_eq!(told.try_recv().unwrap().len(), 1, "the observer was called before the end was told");
    drop(told);
    store.observe(Box::new(Quiet));
    for n in 0..40 {
        put(store, "many", &n.to_string());
    }
    assert!(matches!(store.history().after(1, 100), Err(Compacted { asked: 1, .. })));
    assert!(store.history().after(43, 100).is_ok());

    // Concurrent counters lose nothing.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    run(store, |t| {
                        let n = t.get(b"count").unwrap().map_or(0, |v| v[0]);
                        t.put(b"count".to_vec(), vec![n + 1]);
                        Verdict::Commit
                    });
                }
            });
        }
    });
    assert_eq!(store.snapshot().unwrap().get(b"count").unwrap(), Some(vec![200]));

    // A transaction that fails leaves nothing.
    let (tx, rx) = mpsc::channel();
    store.submit(
        Box::new(|t| {
            t.put(b"bad".to_vec(), vec![]);
            Err(StoreError::Failed("planted".into()))
        }),
        Box::new(move |end| tx.send(end).unwrap()),
    );
    assert_eq!(rx.recv().unwrap(), Err(StoreError::Failed("planted".into())));
    assert_eq!(store.snapshot().unwrap().get(b"bad").unwrap(), None);
}

#[test]
fn memory_conforms() {
    conformance(&MemoryStore::new(16));
}

#[test]
fn redb_conforms_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(dir.path(), 16).unwrap();
    conformance(&store);
    let before = store.snapshot().unwrap();
    let (revision, all) = (before.revision(), keys(&*before, ""));
    drop(before);
    drop(store);
    let store = RedbStore::open(dir.path(), 16).unwrap();
    let after = store.snapshot().unwrap();
    assert_eq!((after.revision(), keys(&*after, "")), (revision, all));
    assert!(store.history().after(revision, 1).is_ok(), "who missed nothing need not list again");
    assert!(store.history().after(revision - 1, 1).is_err());
}

#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(dir.path(), 16).unwrap();
    assert!(matches!(RedbStore::open(dir.path(), 16), Err(StoreError::InUse(d)) if d == dir.path()));
    drop(store);
    set_format(dir.path(), u64::from(FORMAT) + 1);
    assert!(matches!(RedbStore::open(dir.path(), 16), Err(StoreError::Newer { found: 2, known: 1, .. })));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(RedbStore::open(&file.join("x"), 16), Err(StoreError::Directory { .. })));
    let fresh = dir.path().join("a/b");
    drop(RedbStore::open(&fresh, 16).unwrap());
    assert_eq!(std::fs::metadata(&fresh).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_damaged_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(dir.path(), 16).unwrap();
    put(&store, "a", "x");
    drop(store);
    let file = dir.path().join("oracle.redb");
    let whole = std::fs::read(&file).unwrap();
    let mut bad = whole.clone();
    bad[..512].fill(0x55);
    for damaged in [bad, whole[..5_000].to_vec(), vec![b'x'; 100]] {
        std::fs::write(&file, &damaged).unwrap();
        let Err(e) = RedbStore::open_existing(dir.path(), 16) else { panic!("it opened") };
        assert!(matches!(&e, StoreError::Unreadable { path, .. } if *path == file), "{e:?}");
        let text = e.to_string();
        assert!(text.contains("oracle.redb") && text.contains("restore"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
    std::fs::write(&file, &whole).unwrap();
    let store = RedbStore::open_existing(dir.path(), 16).unwrap();
    assert_eq!(store.snapshot().unwrap().get(b"a").unwrap().as_deref(), Some(&b"x"[..]));
}

/// Runs `test` on a file system of `size` octets that nobody else sees.
fn on_small_disk(size: usize, test: impl FnOnce(&std::path::Path) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let run = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("needs root");
        let target = path.to_str().unwrap();
        let (all, size) = (["--make-rprivate", "/"], format!("size={size}"));
        for args in [&all[..], &["-t", "tmpfs", "-o", &size, "tmpfs", target]] {
            assert!(std::process::Command::new("mount").args(args).status().unwrap().success(), "{args:?}");
        }
        test(&path);
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    on_small_disk(4 << 20, |dir| {
        let store = RedbStore::open(dir, 1_000).unwrap();
        let (seen, told) = mpsc::channel();
        store.observe(Box::new(Tell(seen)));
        let write = |n: usize| {
            let (tx, rx) = mpsc::channel();
            let body = move |t: &mut dyn Transaction| {
                t.put(format!("k/{n:04}").into_bytes(), vec![b'v'; 32 << 10]);
                Ok(Verdict::Commit)
            };
            store.submit(Box::new(body), Box::new(move |end| tx.send(end).unwrap()));
            rx.recv().unwrap()
        };
        let filler = dir.join("filler");
        for round in 0..3 {
            // Somebody else takes what is left.
            std::fs::write(&filler, "").unwrap();
            let mut other = std::fs::OpenOptions::new().append(true).open(&filler).unwrap();
            while std::io::Write::write_all(&mut other, &[0; 4_096]).is_ok() {}
            drop(other);
            let before = store.snapshot().unwrap().revision();
            let (full, error) =
                (0..1_000).find_map(|n| write(round * 10 + n).err().map(|e| (round * 10 + n, e))).unwrap();
            assert_eq!(error, StoreError::Full);
            assert!(!error.to_string().contains('\n') && error.to_string().contains("full"));
            // Nothing of it is there, what was there before is, and who watches saw just that.
            let snapshot = store.snapshot().unwrap();
            assert!(snapshot.revision() >= before);
            assert_eq!(snapshot.get(format!("k/{full:04}").as_bytes()).unwrap(), None);
            assert_eq!(told.try_iter().map(|c| c.len()).sum::<usize>(), keys(&*snapshot, "k/").len());
            assert_eq!(write(full).unwrap_err(), StoreError::Full, "still");
            // Room again: so does it go on.
            std::fs::remove_file(&filler).unwrap();
            let revision = write(full).unwrap();
            assert_eq!(revision, snapshot.revision() + 1);
            assert!(store.snapshot().unwrap().get(format!("k/{full:04}").as_bytes()).unwrap().is_some());
            for n in 0..=full {
                let key = format!("k/{n:04}");
                run(&store, move |t| {
                    t.delete(key.clone().into_bytes());
                    Verdict::Commit
                });
            }
            drop(told.try_iter().collect::<Vec<_>>());
        }
        let revision = store.snapshot().unwrap().revision();
        drop(store);
        assert_eq!(RedbStore::open(dir, 16).unwrap().snapshot().unwrap().revision(), revision);
    });
}

#[test]
fn a_store_is_imported_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let entries = (0..3_u8).map(|n| {
        assert!(!exists(dir.path()), "there is no store before it is whole");
        (vec![b'a' + n], vec![n])
    });
    import(dir.path(), 7, entries).unwrap();
    let store = RedbStore::open_existing(dir.path(), 16).unwrap();
    let snapshot = store.snapshot().unwrap();
    assert_eq!((snapshot.revision(), keys(&*snapshot, "")), (7, vec!["a".into(), "b".into(), "c".into()]));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let empty = dir.path().join("empty");
    assert!(
        matches!(RedbStore::open_existing(&empty, 16), Err(StoreError::Missing(f)) if f.starts_with(&empty))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any writes through an overlay read like a plain map.
    #[test]
    fn overlay_reads_like_a_map(
        base in prop::collection::btree_map("[ab]{1,3}", "[xy]", 0..8),
        writes in prop::collection::vec(("[ab]{1,3}", prop::option::of("[xy]")), 0..12),
        prefix in "[ab]{0,2}",
    ) {
        let store = MemoryStore::new(8);
        let mut model: BTreeMap<String, String> = base.clone();
        run(&store, move |t| {
            for (k, v) in &base { t.put(k.clone().into_bytes(), v.clone().into_bytes()); }
            Verdict::Commit
        });
        for (k, v) in &writes {
            match v { Some(v) => { model.insert(k.clone(), v.clone()); } None => { model.remove(k); } }
        }
        let expected: Vec<String> = model.keys().filter(|k| k.starts_with(&prefix)).cloned().collect();
        let after: Vec<String> = model.keys().cloned().collect();
        run(&store, move |t| {
            for (k, v) in writes.clone() {
                match v { Some(v) => t.put(k.into_bytes(), v.into_bytes()), None => t.delete(k.into_bytes()) }
            }
            assert_eq!(keys(t, &prefix), expected);
            Verdict::Commit
        });
        prop_assert_eq!(keys(&*store.snapshot().unwrap(), ""), after);
    }
}
