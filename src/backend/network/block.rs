//! A block that is being filled, of those that an entry is sent in.

use bytes::Bytes;

pub struct Block {
    bytes: Vec<u8>,
    /// Bytes that it holds when it is full.
    size: usize,
}

impl Block {
    /// An empty one, of a size in bytes. Memory is taken with the first byte.
    pub fn of(size: usize) -> Self {
        Block { bytes: Vec::new(), size }
    }

    /// Takes as many bytes as there is room for, and says how many.
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

    /// What is in it, and leaves it empty.
    pub fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.bytes))
    }
}
