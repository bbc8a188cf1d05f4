//! Classic pcap files with nanosecond stamps, as Wireshark and tcpdump read them.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

/// Octets kept of each frame.
pub(crate) const SNAP: usize = 512;

/// A file that frames are appended to.
#[derive(Debug)]
pub(crate) struct Pcap(BufWriter<File>);

impl Pcap {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        // Magic for nanoseconds, version 2.4, UTC, accuracy, snap length, Ethernet.
        for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, u32::try_from(SNAP).unwrap_or(u32::MAX), 1] {
            file.write_all(&word.to_le_bytes())?;
        }
        Ok(Self(file))
    }

    /// Appends the first octets of a frame that was `length` octets long.
    pub(crate) fn write(&mut self, stamp: libc::timespec, bytes: &[u8], length: usize) -> io::Result<()> {
        let word = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX).to_le_bytes();
        self.0.write_all(&word(stamp.tv_sec.cast_unsigned()))?;
        self.0.write_all(&word(stamp.tv_nsec.cast_unsigned()))?;
        self.0.write_all(&word(bytes.len() as u64))?;
        self.0.write_all(&word(length as u64))?;
        self.0.write_all(bytes)
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}
