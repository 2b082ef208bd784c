//! Builds tar blocks with any bytes in any field, and with a valid checksum unless a test wants a wrong one.

pub const BLOCK: usize = 512;

/// A header, with GNU's magic by default.
#[derive(Clone)]
pub struct Header(pub [u8; BLOCK]);

pub fn header(name: impl AsRef<[u8]>, kind: u8) -> Header {
    let mut header = Header([0; BLOCK]);
    header.0[156] = kind;
    header.put(257, b"ustar  \0").put(0, name.as_ref()).number(100, 8, 0o644).number(108, 8, 0);
    header.number(116, 8, 0).number(124, 12, 0).number(136, 12, 1);
    header
}

impl Header {
    pub fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Header {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Writes an octal number that fills a field, with a NUL behind it.
    fn number(&mut self, at: usize, width: usize, value: u64) -> &mut Header {
        self.put(at, format!("{value:0digits$o}\0", digits = width - 1).as_bytes())
    }

    pub fn size(mut self, size: u64) -> Header {
        self.number(124, 12, size);
        self
    }

    /// Sets the twelve bytes of the size field, valid or not.
    pub fn size_bytes(mut self, bytes: &[u8; 12]) -> Header {
        self.put(124, bytes);
        self
    }

    pub fn mode(mut self, mode: u64) -> Header {
        self.number(100, 8, mode);
        self
    }

    pub fn owner(mut self, uid: u64) -> Header {
        self.number(108, 8, uid);
        self
    }

    pub fn target(mut self, target: impl AsRef<[u8]>) -> Header {
        self.put(157, target.as_ref());
        self
    }

    /// Sets POSIX's magic and its field for a name prefix.
    pub fn posix(mut self, prefix: &[u8]) -> Header {
        self.put(257, b"ustar\x0000").put(345, prefix);
        self
    }

    /// Writes any bytes at any offset.
    pub fn with(mut self, at: usize, bytes: &[u8]) -> Header {
        self.put(at, bytes);
        self
    }

    /// Returns the block and its content, padded to a whole number of blocks.
    pub fn bytes(&self, content: &[u8]) -> Vec<u8> {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        self.summed(&format!("{sum:07o}\0"), content)
    }

    /// As [`Header::bytes`], with this checksum.
    pub fn summed(&self, sum: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = self.0.to_vec();
        bytes[148..156].copy_from_slice(sum.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }
}

/// Returns a file as the format writes it.
pub fn file(name: impl AsRef<[u8]>, content: &[u8]) -> Vec<u8> {
    header(name, b'0').size(content.len() as u64).bytes(content)
}

pub fn directory(name: impl AsRef<[u8]>) -> Vec<u8> {
    header([name.as_ref(), b"/"].concat(), b'5').mode(0o755).bytes(b"")
}

pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Vec<u8> {
    header(name, b'2').mode(0o777).target(target).bytes(b"")
}

pub fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Vec<u8> {
    header(name, b'1').target(target).bytes(b"")
}

/// Returns GNU's extension before a member: `L` for its name, `K` for its target.
pub fn long(kind: u8, text: &[u8]) -> Vec<u8> {
    let text = [text, b"\0"].concat();
    let size = text.len() as u64;
    header("././@LongLink", kind).with(136, b"00000000000\0").size(size).bytes(&text)
}

/// Returns an extended header, `x` for the next member or `g` for all, whose records have the right length.
pub fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let records: Vec<String> = records.iter().map(|(key, value)| record(key, value)).collect();
    pax_bytes(kind, records.concat().as_bytes())
}

pub fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length += 1;
    }
    format!("{length}{rest}")
}

/// As [`pax`], with any bytes as records.
pub fn pax_bytes(kind: u8, records: &[u8]) -> Vec<u8> {
    let size = records.len() as u64;
    header("././@PaxHeader", kind).with(136, b"00000000000\0").size(size).bytes(records)
}

/// Returns a member with a name of any length, as the format writes it.
pub fn named(kind: u8, name: &[u8]) -> Vec<u8> {
    if name.len() <= 100 {
        return header(name, kind).bytes(b"");
    }
    [long(b'L', name), header(&name[..100], kind).bytes(b"")].concat()
}

/// Returns a number in base 256, in twelve bytes.
pub fn base256(value: i128) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&value.to_be_bytes()[4..]);
    bytes[0] |= 0x80;
    bytes
}
