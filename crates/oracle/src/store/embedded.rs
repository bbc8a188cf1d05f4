//! The embedded store: one redb file, one writing thread, one fsync for all that waits.

use super::{
    Body, Change, Done, History, Observer, Revision, Snapshot, Store, StoreError, Transaction, Verdict,
    overlay::{Base, Overlay},
};
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    backends::FileBackend,
};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, mpsc},
    thread::JoinHandle,
};

/// The version of keys and values this program writes. A newer one is refused.
pub const FORMAT: u32 = 1;
/// The file in the data directory.
const FILE: &str = "oracle.redb";
/// A store that is being restored.
const UNFINISHED: &str = "oracle.redb.new";
/// Transactions made durable together at most.
const BATCH: usize = 512;

const KEYS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

type Job = (Body, Done);
/// Whom to tell, and how it ended.
type End = (Done, Result<Revision, StoreError>);
type Watching = Arc<Mutex<Option<Box<dyn Observer>>>>;

/// The embedded store.
pub struct RedbStore {
    database: Arc<Opened>,
    history: Arc<History>,
    observer: Watching,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The database while it is open. A failed write closes it: it takes nothing more then, and is opened anew.
struct Opened {
    dir: PathBuf,
    database: RwLock<Option<Database>>,
}

impl Opened {
    fn with<R>(&self, f: impl FnOnce(&Database) -> Result<R, StoreError>) -> Result<R, StoreError> {
        match &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            Some(database) => f(database),
            None => Err(StoreError::Interrupted),
        }
    }

    /// Opens it anew as a start would, and says at which revision it is.
    fn reopen(&self) -> Result<Revision, StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one has the file's lock.
        drop(database.take());
        let (fresh, revision) = open(&self.dir, FILE, New::Refuse)?;
        *database = Some(fresh);
        Ok(revision)
    }
}

fn failed(e: impl Into<redb::Error>) -> StoreError {
    match e.into() {
        redb::Error::Io(e)
            if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            StoreError::Full
        }
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Interrupted,
        other => StoreError::Failed(other.to_string()),
    }
}

impl RedbStore {
    /// Opens the store in `dir`, which is made when missing (mode 0700), and keeps `history`
    /// changes for watchers.
    ///
    /// # Errors
    /// [`StoreError::Directory`], [`StoreError::InUse`], [`StoreError::Newer`] or, for a damaged
    /// file, [`StoreError::Unreadable`].
    pub fn open(dir: &Path, history: usize) -> Result<Self, StoreError> {
        Self::started(dir, open(dir, FILE, New::Make)?, history)
    }

    /// As [`RedbStore::open`], for a directory in which there must be a store already.
    ///
    /// # Errors
    /// Those, and [`StoreError::Missing`].
    pub fn open_existing(dir: &Path, history: usize) -> Result<Self, StoreError> {
        Self::started(dir, open(dir, FILE, New::Refuse)?, history)
    }

    fn started(
        dir: &Path,
        (database, revision): (Database, Revision),
        history: usize,
    ) -> Result<Self, StoreError> {
        let database = Arc::new(Opened { dir: dir.to_owned(), database: RwLock::new(Some(database)) });
        let history = Arc::new(History::new(revision, history));
        let observer = Arc::new(Mutex::new(None));
        let (jobs, queue) = mpsc::channel();
        let mut writer = Writer {
            database: database.clone(),
            history: history.clone(),
            observer: observer.clone(),
            revision,
            unsure: None,
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|e| StoreError::Failed(e.to_string()))?;
        Ok(Self {
            database,
            history,
            observer,
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(thread)),
        })
    }
}

/// What is done about a store that is not there.
enum New<'a> {
    Make,
    /// It is made and holds these entries at this revision: in one transaction, so that it has all of them
    /// or is none.
    Fill(Revision, &'a mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>),
    Refuse,
}

fn open(dir: &Path, name: &str, new: New<'_>) -> Result<(Database, Revision), StoreError> {
    let unusable = |e: io::Error| StoreError::Directory { dir: dir.to_owned(), reason: e.to_string() };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
    let path = dir.join(name);
    if matches!(new, New::Refuse) && fs::metadata(&path).map_or(true, |found| found.len() == 0) {
        return Err(StoreError::Missing(path));
    }
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(unusable)?;
    let in_use = |e: DatabaseError| match e {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(dir.to_owned()),
        other => failed(other).reading(&path),
    };
    let backend = FileBackend::new(file).map_err(in_use)?;
    // A few MB are all an Oracle needs to remember; the default of 1 GiB is for other uses.
    let database =
        Database::builder().set_cache_size(64 << 20).create_with_backend(backend).map_err(in_use)?;
    let found = found(&database).map_err(|e| e.reading(&path))?;
    if let Some((format, revision)) = found {
        let newer = |found| StoreError::Newer { dir: dir.to_owned(), found, known: FORMAT };
        match u32::try_from(format) {
            Ok(FORMAT) => return Ok((database, revision)),
            Ok(found) if found > FORMAT => return Err(newer(found)),
            Ok(other) => return Err(StoreError::Failed(format!("its format {other} was never released"))),
            Err(_) => return Err(newer(u32::MAX)),
        }
    }
    let (revision, entries) = match new {
        New::Make => (0, None),
        New::Fill(revision, entries) => (revision, Some(entries)),
        New::Refuse => return Err(StoreError::Missing(path)),
    };
    let tx = database.begin_write().map_err(failed)?;
    {
        let mut keys = tx.open_table(KEYS).map_err(failed)?;
        for (key, value) in entries.into_iter().flatten() {
            keys.insert(key.as_slice(), value.as_slice()).map_err(failed)?;
        }
        let mut meta = tx.open_table(META).map_err(failed)?;
        meta.insert("format", u64::from(FORMAT)).map_err(failed)?;
        meta.insert("revision", revision).map_err(failed)?;
    }
    tx.commit().map_err(failed)?;
    // The file's name must be durable too before anything in it counts.
    sync_dir(dir).map_err(unusable)?;
    Ok((database, revision))
}

/// The format and the revision that a database says it has.
fn found(database: &Database) -> Result<Option<(u64, Revision)>, StoreError> {
    let tx = database.begin_read().map_err(failed)?;
    let meta = match tx.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let value = |name| meta.get(name).map(|v| v.map(|v| v.value())).map_err(failed);
    value("format")?.map(|f| Ok((f, value("revision")?.unwrap_or(0)))).transpose()
}

/// Makes a store in `dir` that holds `entries` at `revision`.
pub(crate) fn import(
    dir: &Path,
    revision: Revision,
    entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<(), StoreError> {
    // Under another name until it is whole: a restore that is cut short leaves no store.
    drop(open(dir, UNFINISHED, New::Fill(revision, &mut entries.into_iter()))?);
    let renamed = fs::rename(dir.join(UNFINISHED), dir.join(FILE)).and_then(|()| sync_dir(dir));
    renamed.map_err(|e| StoreError::Directory { dir: dir.to_owned(), reason: e.to_string() })
}

/// Makes names created in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Whether `dir` holds a store already.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

/// For tests of what another version's files do.
#[cfg(test)]
pub(crate) fn set_format(dir: &Path, format: u64) {
    let database = Database::create(dir.join(FILE)).unwrap();
    let tx = database.begin_write().unwrap();
    tx.open_table(META).unwrap().insert("format", format).unwrap();
    tx.commit().unwrap();
}

impl Store for RedbStore {
    fn submit(&self, body: Body, done: Done) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match &*jobs {
            Some(jobs) => {
                if let Err(mpsc::SendError((_, done))) = jobs.send((body, done)) {
                    done(Err(StoreError::Closed));
                }
            }
            None => done(Err(StoreError::Closed)),
        }
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let path = self.database.dir.join(FILE);
        let opened = self.database.with(|database| {
            let tx = database.begin_read().map_err(failed)?;
            let meta = tx.open_table(META).map_err(failed)?;
            let revision = meta.get("revision").map_err(failed)?.map_or(0, |v| v.value());
            Ok((tx.open_table(KEYS).map_err(failed)?, revision))
        });
        let (table, revision) = opened.map_err(|e| e.reading(&path))?;
        Ok(Box::new(Still { table, revision, path }))
    }

    fn history(&self) -> &History {
        &self.history
    }

    fn observe(&self, observer: Box<dyn Observer>) {
        *self.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It drains what was submitted; a panic there has been reported by the panic hook.
            drop(writer.join());
        }
    }
}

struct Writer {
    database: Arc<Opened>,
    history: Arc<History>,
    observer: Watching,
    revision: Revision,
    /// What a commit that failed would have changed. It may be durable all the same: the revision says so
    /// when the database is open again.
    unsure: Option<(Revision, Vec<Arc<Change>>)>,
}

impl Writer {
    fn run(&mut self, queue: &mpsc::Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(job) = queue.try_recv()
            {
                batch.push(job);
            }
            self.batch(batch);
        }
    }

    fn batch(&mut self, batch: Vec<Job>) {
        if self.database.with(|_| Ok(())).is_err()
            && let Err(e) = self.reopen()
        {
            batch.into_iter().for_each(|(_, done)| done(Err(e.clone())));
            return;
        }
        let mut ends: Vec<End> = Vec::with_capacity(batch.len());
        let mut changes = Vec::new();
        let mut revision = self.revision;
        let committed = self.write(batch, &mut ends, &mut changes, &mut revision);
        match committed {
            Ok(()) => self.publish(revision, &changes, ends),
            Err(e) => {
                tracing::error!(error = %e, transactions = ends.len(), "the store cannot commit");
                self.unsure = Some((revision, changes)).filter(|(_, changes)| !changes.is_empty());
                match self.reopen() {
                    // It is durable after all, and published.
                    Ok(true) => ends.into_iter().for_each(|(done, end)| done(end)),
                    Ok(false) | Err(_) => ends.into_iter().for_each(|(done, _)| done(Err(e.clone()))),
                }
            }
        }
    }

    /// Tells of what is durable now, and then `ends`.
    fn publish(&mut self, revision: Revision, changes: &[Arc<Change>], ends: Vec<End>) {
        self.revision = revision;
        let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        let observer = observer.as_mut().filter(|_| !changes.is_empty());
        if !changes.is_empty() {
            self.history.push(changes, revision);
        }
        let Some(observer) = observer else {
            ends.into_iter().for_each(|(done, end)| done(end));
            return;
        };
        observer.committed(changes);
        ends.into_iter().for_each(|(done, end)| done(end));
        observer.told(changes);
    }

    /// Opens the database anew: after a write that failed it takes nothing more. Whether what that write
    /// was about is durable nevertheless; then it is published.
    fn reopen(&mut self) -> Result<bool, StoreError> {
        let found = self.database.reopen().inspect_err(|e| {
            tracing::error!(error = %e, "the store cannot be opened again; it is tried with the next request");
        })?;
        let unsure = self.unsure.take().filter(|(revision, _)| *revision == found);
        if let Some((revision, changes)) = &unsure {
            self.publish(*revision, changes, Vec::new());
        }
        Ok(unsure.is_some())
    }

    /// Runs all transactions and commits once. Every job ends up in `ends`.
    fn write(
        &self,
        batch: Vec<Job>,
        ends: &mut Vec<End>,
        changes: &mut Vec<Arc<Change>>,
        revision: &mut Revision,
    ) -> Result<(), StoreError> {
        let mut jobs = batch.into_iter();
        let tx = match self.database.with(|database| database.begin_write().map_err(failed)) {
            Ok(tx) => tx,
            Err(e) => {
                ends.extend(jobs.map(|(_, done)| (done, Err(e.clone()))));
                return Err(e);
            }
        };
        let result = (|| {
            let mut keys = tx.open_table(KEYS).map_err(failed)?;
            for (mut body, done) in jobs.by_ref() {
                match run(&mut body, &keys, *revision + 1) {
                    Ok(made) => {
                        if !made.is_empty() {
                            *revision += 1;
                        }
                        ends.push((done, Ok(*revision)));
                        for change in &made {
                            apply(&mut keys, change)?;
                        }
                        changes.extend(made);
                    }
                    Err(e) => ends.push((done, Err(e))),
                }
            }
            if !changes.is_empty() {
                let mut meta = tx.open_table(META).map_err(failed)?;
                meta.insert("revision", *revision).map_err(failed)?;
            }
            Ok(())
        })();
        let result = match result {
            Ok(()) if changes.is_empty() => tx.abort().map_err(failed),
            // Durable when it returns: redb's default durability is Immediate.
            Ok(()) => tx.commit().map_err(failed),
            Err(e) => {
                drop(tx);
                Err(e)
            }
        };
        if let Err(e) = &result {
            ends.extend(jobs.map(|(_, done)| (done, Err(e.clone()))));
        }
        result
    }
}

type Keys<'tx> = Table<'tx, &'static [u8], &'static [u8]>;

fn run(body: &mut Body, keys: &Keys<'_>, revision: Revision) -> Result<Vec<Arc<Change>>, StoreError> {
    let mut overlay = Overlay::new(keys);
    match body(&mut overlay)? {
        Verdict::Commit => overlay.changes(revision),
        Verdict::Abort => Ok(Vec::new()),
    }
}

fn apply(keys: &mut Keys<'_>, change: &Change) -> Result<(), StoreError> {
    match &change.after {
        Some(value) => drop(keys.insert(change.key.as_slice(), value.as_slice()).map_err(failed)?),
        None => drop(keys.remove(change.key.as_slice()).map_err(failed)?),
    }
    Ok(())
}

fn get(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(table.get(key).map_err(failed)?.map(|v| v.value().to_vec()))
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
    each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    for entry in table.range(prefix..).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        if !key.value().starts_with(prefix) || !each(key.value(), value.value()) {
            break;
        }
    }
    Ok(())
}

impl Base for Keys<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(self, key)
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        scan(self, prefix, each)
    }
}

struct Still {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
    revision: Revision,
    path: PathBuf,
}

impl Transaction for Still {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&self.table, key).map_err(|e| e.reading(&self.path))
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        scan(&self.table, prefix, each).map_err(|e| e.reading(&self.path))
    }

    fn put(&mut self, _key: Vec<u8>, _value: Vec<u8>) {}

    fn delete(&mut self, _key: Vec<u8>) {}
}

impl Snapshot for Still {
    fn revision(&self) -> Revision {
        self.revision
    }
}
