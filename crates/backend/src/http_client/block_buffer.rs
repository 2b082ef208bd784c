//! A block that is being filled. Entries are uploaded in blocks.

use bytes::Bytes;

pub struct Block {
    bytes: Vec<u8>,
    /// Bytes of a full block.
    size: usize,
}

impl Block {
    /// Creates an empty block of `size` bytes. Its memory is allocated with the first byte.
    pub fn new(size: usize) -> Self {
        Block { bytes: Vec::new(), size }
    }

    /// Takes as many bytes as there is room for, and returns how many.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.size);
        }
        let taken = bytes.len().min(self.size - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() == self.size
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the bytes, and leaves the block empty.
    pub fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.bytes))
    }
}
