//! Accounting for bytes in memory, with back-pressure: a thread that needs more waits until others are done.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A number of bytes that several threads share.
#[derive(Clone)]
pub struct ByteSemaphore(Arc<Account>);

struct Account {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    limit: u64,
    used: u64,
    closed: bool,
}

impl ByteSemaphore {
    pub fn new(bytes: u64) -> Self {
        let state = Mutex::new(State { limit: bytes, used: 0, closed: false });
        ByteSemaphore(Arc::new(Account { state, changed: Condvar::new() }))
    }

    /// Waits until `bytes` are available, and claims them. A lone request is always granted, even above the
    /// limit, so this cannot deadlock. Returns `None` once the allowance is closed.
    pub fn take(&self, bytes: u64) -> Option<Permit> {
        let mut state = self.0.state();
        while !state.closed && state.used > 0 && state.used.saturating_add(bytes) > state.limit {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.used += bytes;
        Some(Permit { account: Arc::clone(&self.0), bytes })
    }

    /// As [`ByteSemaphore::take`], but returns `None` instead of waiting.
    pub fn try_take(&self, bytes: u64) -> Option<Permit> {
        let mut state = self.0.state();
        if state.closed || (state.used > 0 && state.used.saturating_add(bytes) > state.limit) {
            return None;
        }
        state.used += bytes;
        Some(Permit { account: Arc::clone(&self.0), bytes })
    }

    /// Changes the limit.
    pub fn becomes(&self, bytes: u64) {
        self.0.state().limit = bytes;
        self.0.changed.notify_all();
    }

    /// Closes the allowance: from now on, no request is granted and no request waits.
    pub fn close(&self) {
        self.0.state().closed = true;
        self.0.changed.notify_all();
    }
}

impl Account {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim on bytes. Dropping it releases them.
pub struct Permit {
    account: Arc<Account>,
    bytes: u64,
}

impl Permit {
    /// Releases all bytes above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if let Some(over) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.account.state().used -= over;
            self.account.changed.notify_all();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// Bytes in memory, together with their claim.
pub struct MeteredBytes {
    bytes: Vec<u8>,
    claim: Option<Permit>,
}

impl MeteredBytes {
    /// `claim` covers as many bytes.
    pub fn new(bytes: Vec<u8>, claim: Option<Permit>) -> Self {
        MeteredBytes { bytes, claim }
    }

    /// Returns the bytes and their claim.
    pub fn into_parts(self) -> (Vec<u8>, Option<Permit>) {
        (self.bytes, self.claim)
    }
}

impl Deref for MeteredBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for MeteredBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn request_above_the_limit_waits_for_a_release() {
        let allowance = ByteSemaphore::new(10);
        let first = allowance.take(6).unwrap();
        assert!(allowance.try_take(5).is_none());
        let second = allowance.try_take(4).unwrap();
        let (send, receive) = channel();
        let waiting = {
            let allowance = allowance.clone();
            thread::spawn(move || send.send(allowance.take(5).is_some()).unwrap())
        };
        assert!(receive.try_recv().is_err());
        drop(first);
        assert!(receive.recv().unwrap());
        waiting.join().unwrap();
        drop(second);
    }

    #[test]
    fn lone_request_is_granted_above_the_limit() {
        let allowance = ByteSemaphore::new(10);
        let mut large = allowance.take(50).unwrap();
        assert!(allowance.try_take(1).is_none());
        large.shrink_to(9);
        assert!(allowance.try_take(1).is_some());
    }

    #[test]
    fn close_wakes_waiting_requests() {
        let allowance = ByteSemaphore::new(1);
        let _all = allowance.take(1).unwrap();
        let waiting = {
            let allowance = allowance.clone();
            thread::spawn(move || allowance.take(1).is_none())
        };
        allowance.close();
        assert!(waiting.join().unwrap());
    }
}
