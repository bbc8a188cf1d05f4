//! The "new ASCII" form of cpio archives, of which the kernel makes its first file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

/// A directory that only its owner writes.
const DIRECTORY: u32 = 0o040_755;
/// A file that anybody may run.
const PROGRAM: u32 = 0o100_755;
/// The name of the entry that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive that is being written.
pub(super) struct Archive<W> {
    to: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) const fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    /// A directory; those above it come first.
    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY, &[])
    }

    /// A file that may be run.
    pub(super) fn program(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        self.entry(name, PROGRAM, octets)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(END, 0, &[])?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, octets: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let length = u32::try_from(octets.len()).map_err(io::Error::other)?;
        let named = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // Inode, mode, user, group, links, time, size, device and special device (major, minor), length of the
        // name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, named, 0];
        let mut header = "070701".to_owned();
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        let named = [header.as_bytes(), name.as_bytes(), &[0]].concat();
        for part in [&named, octets] {
            self.to.write_all(part)?;
            // Header with name, and content, each end at a multiple of four.
            self.to.write_all(&[0; 3][..part.len().next_multiple_of(4) - part.len()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_multiples_of_four() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("bin").unwrap();
        archive.program("init", b"12345").unwrap();
        let all = archive.finish().unwrap();
        assert_eq!(all.len() % 4, 0);
        let at = |name: &str| all.windows(name.len()).position(|part| part == name.as_bytes()).unwrap();
        for name in ["bin", "init", END] {
            let header = at(name) - 110;
            assert_eq!(header % 4, 0, "{name}");
            assert_eq!(&all[header..header + 6], b"070701");
        }
        let init = at("init") - 110;
        assert_eq!(&all[init + 54..init + 62], b"00000005", "its size");
        assert_eq!(&all[init + 94..init + 102], b"00000005", "its name with the end of a C string");
        assert_eq!(&all[init + 116..init + 121], b"12345");
    }
}
